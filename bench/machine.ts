/** What the figures were taken on. */
import { cpus, loadavg, release, totalmem } from "node:os";
import { outputOf } from "../scripts/process.ts";

export async function describeMachine(): Promise<string> {
  const processors = cpus();
  const versions = await Promise.all([
    outputOf(["nix", "--version"]),
    outputOf(["git", "rev-parse", "--short=12", "HEAD"]),
  ]);
  const [nix = "no Nix", commit = "no commit"] = versions;
  return [
    `${processors.length} × ${processors[0]?.model ?? "unknown"}, ${Math.round(totalmem() / 2 ** 30)} GiB`,
    `Linux ${release()}`,
    `Bun ${Bun.version}`,
    nix,
    `commit ${commit}`,
  ].join(", ");
}

/** Processes that wanted a processor, as a mean over the last minute: above the number of them figures are noisy. */
export function describeLoad(): string {
  return `load ${(loadavg()[0] ?? 0).toFixed(1)}`;
}

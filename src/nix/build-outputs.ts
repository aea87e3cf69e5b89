/**
 * Builds derivations whose output paths follow from what they will contain, and asks Nix what these are: by
 * `nix build --json`, since the store alone knows them by a hash of its own, and of impure derivations not at all.
 */
import { EXPERIMENTAL } from "./ask.ts";
import { runCommand } from "./command.ts";
import { readVersion } from "./configuration.ts";
import { runLines } from "./lines.ts";
import { parseLogLine } from "./log-event.ts";
import type { RealiseOptions } from "./realise.ts";
import { inBatches } from "./spawn.ts";

/** Output paths by name, by derivation. */
export type BuiltOutputs = Map<string, Readonly<Record<string, string>>>;

/**
 * What is there already is not built again, unless it is impure. When one of several fails Nix tells nothing of the
 * others either, so these are asked for in ever smaller groups.
 *
 * @returns those that are there in the end; why others are not the events say
 * @throws `nix-store` when Nix cannot be started
 */
export async function buildOutputs(
  drvPaths: readonly string[],
  options: RealiseOptions,
): Promise<BuiltOutputs> {
  const found: BuiltOutputs = new Map();
  if (drvPaths.length === 0 || options.signal?.aborted) return found;
  const suffix = (await wantsOutputs(options)) ? "^*" : "";
  const ask = async (group: readonly string[]): Promise<void> => {
    if (group.length === 0 || options.signal?.aborted) return;
    if (await askFor(group, suffix, options, found)) return;
    if (group.length === 1) return;
    const middle = Math.ceil(group.length / 2);
    await ask(group.slice(0, middle));
    await ask(group.slice(middle));
  };
  await inBatches(drvPaths, ask);
  return found;
}

async function askFor(
  drvPaths: readonly string[],
  suffix: string,
  options: RealiseOptions,
  found: BuiltOutputs,
): Promise<boolean> {
  const { storeRoot, extraArgs = [] } = options;
  const argv = [
    ...["nix", ...EXPERIMENTAL, "build", "--json", "--no-link", "--keep-going"],
    ...["--log-format", "internal-json"],
    ...(storeRoot === undefined ? [] : ["--store", storeRoot]),
    ...extraArgs,
    ...drvPaths.map((path) => path + suffix),
  ];
  const { exitCode, output } = await runLines(argv, {
    ...options,
    keepOutput: true,
    onLine: (line) => options.onEvent(parseLogLine(line)),
  });
  if (exitCode !== 0) return false;
  for (const [drvPath, outputs] of parseBuildJson(output)) found.set(drvPath, outputs);
  return true;
}

/** `[{drvPath, outputs: {NAME: PATH}}]`; what else there may be names no derivation. */
export function parseBuildJson(json: string): [string, Record<string, string>][] {
  let list: unknown;
  try {
    list = JSON.parse(json);
  } catch {
    return [];
  }
  if (!Array.isArray(list)) return [];
  return list.flatMap((item: unknown) => {
    const { drvPath, outputs } = (item ?? {}) as Record<string, unknown>;
    if (typeof drvPath !== "string" || typeof outputs !== "object" || outputs === null) return [];
    const known = Object.entries(outputs).filter(([, path]) => typeof path === "string");
    return [[drvPath, Object.fromEntries(known)]];
  });
}

/** From 2.13 on a derivation's path alone means its file. https://nix.dev/manual/nix/latest/release-notes/rl-2.13 */
async function wantsOutputs({ env }: RealiseOptions): Promise<boolean> {
  const version = await readVersion(runCommand, env);
  const [major = 0, minor = 0] = (version ?? "").split(".").map(Number);
  return version === undefined || major > 2 || minor >= 13;
}

/** How nixcache refuses: one sentence, one hint, an exit code, and nothing else. */
import { expect } from "bun:test";
import { existsSync } from "node:fs";
import { snapshot } from "./cache-files.ts";
import type { Cli, CliResult, RunOptions } from "./cli.ts";

export interface Refusal {
  readonly code: number;
  /** What the sentence says; its subject at least. */
  readonly says: string | RegExp;
  readonly hints?: string | RegExp;
}

/** Fails unless `result` is exactly this refusal. Warnings before it are allowed. */
export function expectRefusal(result: CliResult, { code, says, hints = /\w/ }: Refusal): void {
  // In GitHub Actions both are one annotation.
  const text = result.stderr.replace(/^::error title=nixcache::(.*)%0A(.*)$/m, "[error] $1\n[info] $2");
  const lines = text.trimEnd().split("\n");
  const told = lines.filter((line) => !line.startsWith("[warn] "));
  expect({ code: result.code, stdout: result.stdout, lines: told.length, told }).toMatchObject({
    code,
    stdout: "",
    lines: 2,
  });
  expect(told[0]).toMatch(/^\[error\] \S/);
  expect(told[0]).toMatch(says);
  expect(told[1]).toMatch(/^\[info\] \S.*\w/);
  expect(told[1]?.slice("[info] ".length)).toMatch(hints);
  expect(result.stderr).not.toMatch(/^\s+at |NixcacheError|bunfs|a defect in nixcache/m);
}

/** Runs and fails unless that is refused and leaves all files but the local index as they were. */
export async function expectRefused(
  cli: Cli,
  args: readonly string[],
  refusal: Refusal,
  options: RunOptions = {},
): Promise<CliResult> {
  const files = async () => {
    const found = await Promise.all(
      ["cwd", "tmp", "xdg-data"].map(async (name) =>
        existsSync(cli.path(name)) ? [...(await snapshot(cli.path(name)))] : name,
      ),
    );
    return found;
  };
  const before = await files();
  const result = await cli.run(args, options);
  expectRefusal(result, refusal);
  expect(await files()).toEqual(before);
  return result;
}

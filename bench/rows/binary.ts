/** Starting the binary, as a shell sees it. */

import { join } from "node:path";
import { build } from "../../scripts/build.ts";
import { ROOT } from "../../scripts/process.ts";
import { time } from "../bench.ts";
import { of, type Row, type Sample } from "../row.ts";

const RUNS = 20;

export const binary: Row = {
  name: "binary",
  parts: [],
  async open(bench) {
    // What Bun needs to start any program, which `bun --version` leaves out.
    const source = join(bench.folder, "empty.ts");
    await Bun.write(source, 'console.log("");');
    const empty = await build({ entry: source, outfile: join(bench.folder, "empty") });
    return {
      contenders: {
        bun: () => startOf([process.execPath, "--version"]),
        empty: () => startOf([empty]),
        nixcache: () => startOf([join(ROOT, "dist", "nixcache"), "--version"]),
      },
      goals: [
        {
          ...{ what: "--version, of bun's", unit: "×", target: { atMost: 2 }, within: 3 },
          figure: (round) => of(round, "nixcache", "ms") / of(round, "bun", "ms"),
        },
        {
          ...{ what: "--version, of an empty program compiled by Bun", unit: "×" },
          figure: (round) => of(round, "nixcache", "ms") / of(round, "empty", "ms"),
        },
      ],
    };
  },
};

/** The median of many starts: each is a few milliseconds. */
async function startOf(argv: readonly string[]): Promise<Sample> {
  const runs: number[] = [];
  for (let run = 0; run < RUNS; run++) runs.push((await time(argv)).seconds * 1000);
  runs.sort((a, b) => a - b);
  return { ms: runs[RUNS / 2] ?? Number.NaN };
}

/** Starting the binary, as a shell sees it. */

import { join } from "node:path";
import { ROOT } from "../../scripts/process.ts";
import { time } from "../bench.ts";
import { of, type Row, type Sample } from "../row.ts";

const RUNS = 20;

export const binary: Row = {
  name: "binary",
  parts: [],
  async open() {
    return {
      contenders: {
        bun: () => startOf([process.execPath, "--version"]),
        nixcache: () => startOf([join(ROOT, "dist", "nixcache"), "--version"]),
      },
      goals: [
        {
          ...{ what: "--version, of bun's", unit: "×", target: { atMost: 2 }, within: 3 },
          figure: (round) => of(round, "nixcache", "ms") / of(round, "bun", "ms"),
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

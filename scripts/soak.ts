/**
 * The random parts of the tests, over and over with new seeds: `bun run test:soak --minutes 10`.
 *
 * Each round draws a seed and runs every part with it. The first failure ends the soak with what failed and the
 * line that repeats it.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { build } from "./build.ts";
import { ROOT, run, runScript } from "./process.ts";

/** Milliseconds one test may take: they are many rounds each. */
const TEST_TIMEOUT = 600_000;

/** The cheapest first, so that a round of a short soak has seen something of each kind of thing. */
const PARTS = [
  "tests/unit/protocol/interleavings.test.ts",
  "tests/fuzz",
  "tests/faults/faults.test.ts",
  "tests/faults/wrong-bytes.test.ts",
  "tests/faults/index-killed.test.ts",
  "tests/faults/killed.test.ts",
  "tests/faults/publishers.test.ts",
  "tests/soak",
];

/** What a busy server is asked for in an hour. */
const SERVE_REQUESTS = "36000";

await runScript(async () => {
  const { values } = parseArgs({ options: { minutes: { type: "string", default: "10" } } });
  const minutes = Number(values.minutes);
  if (!(minutes > 0))
    throw new Error(`--minutes: got ${JSON.stringify(values.minutes)}, expected a number above 0`);
  await build();
  const parts = PARTS.filter((part) => existsSync(join(ROOT, part)));
  const end = performance.now() + minutes * 60_000;
  const started = performance.now();
  let rounds = 0;
  for (; rounds === 0 || performance.now() < end; rounds++) {
    const seed = String(1 + Math.floor(Math.random() * 2 ** 31));
    for (const part of parts) {
      // A part that has begun is ended; none begins after the time is up, but each is run once.
      if (rounds > 0 && performance.now() >= end) break;
      console.log(`\nround ${rounds + 1}: NIXCACHE_SEED=${seed} ${part}`);
      const command = [
        process.execPath,
        "test",
        `--timeout=${TEST_TIMEOUT}`,
        "--preload",
        "./tests/support/seed.ts",
        part,
      ];
      const env = { NIXCACHE_SEED: seed, NIXCACHE_SOAK_REQUESTS: SERVE_REQUESTS, CI: "true" };
      const status = await run(command, env);
      if (status === 0) continue;
      const repeat = `NIXCACHE_SEED=${seed} NIXCACHE_SOAK_REQUESTS=${SERVE_REQUESTS} bun run test ${part}`;
      console.log(`\nFAILED after ${since(started)}, to repeat: ${repeat}`);
      return 1;
    }
  }
  console.log(`\n${rounds} rounds in ${since(started)}, nothing failed`);
  return 0;
});

function since(start: number): string {
  return `${Math.round((performance.now() - start) / 6000) / 10} minutes`;
}

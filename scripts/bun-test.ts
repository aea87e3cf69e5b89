/** One run of `bun test`, and what came of it. */
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { countTests, reportedFiles, type TestCounts } from "./junit.ts";
import { run } from "./process.ts";

/** Milliseconds a single test may take. A real Nix on a slow machine takes its time; a hang takes for ever. */
const TEST_TIMEOUT = 120_000;

export interface TestRun {
  readonly counts: TestCounts;
  /** Those that reported a test, relative to the project. */
  readonly files: ReadonlySet<string>;
  /** What went wrong beside tests that failed. */
  readonly problems: readonly string[];
}

/**
 * @param args files, folders and flags; none for all tests.
 * @param timeout milliseconds a single test may take
 */
export async function bunTest(
  args: readonly string[],
  env: Record<string, string>,
  timeout = TEST_TIMEOUT,
): Promise<TestRun> {
  const folder = await mkdtemp(join(tmpdir(), "nixcache-report-"));
  try {
    const report = join(folder, "junit.xml");
    const command = [
      ...[process.execPath, "test", `--timeout=${timeout}`, "--preload", "./tests/support/seed.ts"],
      ...["--reporter=junit", `--reporter-outfile=${report}`, ...args],
    ];
    // Debian's docker-registry may be where only root looks.
    const path = `${env.PATH ?? process.env.PATH ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`;
    const exitCode = await run(command, { ...env, PATH: path });
    const xml = existsSync(report) ? await Bun.file(report).text() : "";
    const counts = countTests(xml);
    const problems: string[] = [];
    if (exitCode !== 0 && counts.failed === 0) {
      problems.push(
        `bun test: status ${exitCode} without a failed test: a test file could not be loaded, see above`,
      );
    }
    if (counts.passed + counts.failed === 0) problems.push("bun test: no test ran");
    return { counts, files: reportedFiles(xml), problems };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * What is wrong when not each of `files` has reported a test: one that ends the process early takes those after it
 * along, and Bun calls that a success.
 */
export function silentFiles(files: readonly string[], ran: TestRun): string[] {
  const silent = files.filter((file) => !ran.files.has(file));
  return silent.length === 0 ? [] : [`bun test: no test reported from ${silent.join(", ")}`];
}

/** Of several runs together. */
export function addCounts(...runs: readonly TestCounts[]): TestCounts {
  return {
    passed: runs.reduce((sum, { passed }) => sum + passed, 0),
    failed: runs.reduce((sum, { failed }) => sum + failed, 0),
    skipped: runs.flatMap(({ skipped }) => skipped),
  };
}

/** A run's random choices; printed, so that it can be repeated. */
export function chooseSeed(): string {
  const seed = process.env.NIXCACHE_SEED || String(1 + Math.floor(Math.random() * 2 ** 31));
  console.log(`seed: NIXCACHE_SEED=${seed}\n`);
  return seed;
}

/**
 * The whole test run: `bun run test [arguments of bun test]`.
 *
 * Installs what is missing, checks format, lint and types, builds the binary, runs the tests and a quick bench, and
 * closes on the line `N passed, N failed`. Green means: each of these went well, at least one test ran, every test file
 * reported, and with CI=true nothing was skipped.
 *
 * NIXCACHE_SEED repeats a run's random choices; it is printed at the start.
 */
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "./build.ts";
import { countTests, reportedFiles, type TestCounts } from "./junit.ts";
import { ensureParts, PARTS, type PartName } from "./parts.ts";
import { ROOT, run, runScript } from "./process.ts";

/** Milliseconds a single test may take. A real Nix on a slow machine takes its time; a hang takes for ever. */
const TEST_TIMEOUT = 120_000;

/** Rows of the bench that take seconds. Their counts are tests; of their ratios only what is far off fails. */
const QUICK_ROWS = ["narinfo", "nar", "publish-paths", "binary"];

const isCi = process.env.CI === "true";

await runScript(async () => {
  const args = process.argv.slice(2);
  const failures: string[] = [];
  let counts: TestCounts = { passed: 0, failed: 0, skipped: [] };

  const step = async (name: string, body: () => Promise<void>): Promise<boolean> => {
    const start = performance.now();
    try {
      await body();
      console.log(`${name}: ok (${((performance.now() - start) / 1000).toFixed(1)} s)`);
      return true;
    } catch (error) {
      failures.push(`${name}: ${error instanceof Error ? error.message : String(error)}`);
      return false;
    }
  };
  const bun = async (...argv: string[]): Promise<void> => {
    const exitCode = await run([process.execPath, ...argv]);
    if (exitCode !== 0) throw new Error(`failed with status ${exitCode}`);
  };

  await step("parts", async () => {
    // Without them the tests that need them are skipped, which CI does not accept.
    const names = Object.keys(PARTS) as PartName[];
    await ensureParts(names, { optional: !isCi });
  });
  await step("format and lint", () => bun("x", "biome", "check", "."));
  await step("types", () => bun("x", "tsc", "--noEmit"));
  await step("types of the page", () => bun("x", "tsc", "--noEmit", "--project", "src/serve/page/client"));
  await step("build", async () => void (await build()));

  const seed = process.env.NIXCACHE_SEED || String(1 + Math.floor(Math.random() * 2 ** 31));
  console.log(`seed: NIXCACHE_SEED=${seed}\n`);
  const folder = await mkdtemp(join(tmpdir(), "nixcache-report-"));
  try {
    const report = join(folder, "junit.xml");
    const exitCode = await run([process.execPath, ...testCommand(report), ...args], {
      NIXCACHE_SEED: seed,
      // Debian's docker-registry may be where only root looks.
      PATH: `${process.env.PATH ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`,
    });
    const xml = existsSync(report) ? await Bun.file(report).text() : "";
    counts = countTests(xml);
    if (exitCode !== 0 && counts.failed === 0) {
      failures.push(
        `bun test: status ${exitCode} without a failed test: a test file could not be loaded, see above`,
      );
    }
    if (counts.passed + counts.failed === 0) failures.push("bun test: no test ran");
    // A file that ends the process early takes the files after it along, and Bun calls that a success.
    if (args.length === 0) {
      const reported = reportedFiles(xml);
      const silent = (await testFiles()).filter((file) => !reported.has(file));
      if (silent.length > 0) failures.push(`bun test: no test reported from ${silent.join(", ")}`);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }

  // After the tests, so that nothing else wants the processors.
  if (args.length === 0) await step("bench", () => bun("bench/main.ts", "--quick", ...QUICK_ROWS));

  if (counts.skipped.length > 0) {
    console.log(`\nskipped:\n${counts.skipped.map((name) => `  ${name}`).join("\n")}`);
    if (isCi) failures.push(`${counts.skipped.length} tests were skipped, which CI=true forbids`);
  }
  for (const failure of failures) console.log(`\nFAILED ${failure}`);
  if (counts.failed > 0) console.log(`\nTo repeat: NIXCACHE_SEED=${seed} bun run test`);
  const failed = counts.failed + failures.length;
  console.log(`\n${counts.passed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
});

function testCommand(report: string): string[] {
  return [
    ...["test", `--timeout=${TEST_TIMEOUT}`, "--preload", "./tests/support/seed.ts"],
    ...["--reporter=junit", `--reporter-outfile=${report}`],
  ];
}

async function testFiles(): Promise<string[]> {
  const files = await Array.fromAsync(new Bun.Glob("tests/**/*.test.ts").scan({ cwd: ROOT }));
  return files.sort();
}

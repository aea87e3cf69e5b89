/**
 * The whole test run: `bun run test [arguments of bun test]`.
 *
 * Installs what is missing, checks format, lint and types, builds the binary, runs the tests, some of them again with
 * a newer Nix, and a quick bench, and closes on the line `N passed, N failed`. Green means: each of these went well, at
 * least one test ran, every test file reported, and with CI=true nothing was skipped.
 *
 * NIXCACHE_SEED repeats a run's random choices; it is printed at the start.
 */
import { build } from "./build.ts";
import { addCounts, bunTest, chooseSeed, silentFiles, type TestRun } from "./bun-test.ts";
import { REPEATED_WITH_NEWER_NIX } from "./nix-test-files.ts";
import { environmentOf, type NixVersion, newerNix } from "./nix-versions.ts";
import { ensureParts, PARTS, type PartName } from "./parts.ts";
import { ROOT, run, runScript } from "./process.ts";

/** Rows of the bench that take seconds. Their counts are tests; of their ratios only what is far off fails. */
const QUICK_ROWS = ["narinfo", "nar", "publish-paths", "binary"];

const isCi = process.env.CI === "true";

await runScript(async () => {
  const args = process.argv.slice(2);
  const failures: string[] = [];
  const runs: TestRun[] = [];

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
  let newer: NixVersion | undefined;
  if (args.length === 0) {
    const found = await newerNix().catch((error: Error) => error);
    if (!(found instanceof Error)) newer = found;
    else if (isCi) failures.push(`a newer Nix: ${found.message}`);
    else console.error(`No test runs with a newer Nix: ${found.message}`);
  }
  await step("format and lint", () => bun("x", "biome", "check", "."));
  await step("types", () => bun("x", "tsc", "--noEmit"));
  await step("types of the page", () => bun("x", "tsc", "--noEmit", "--project", "src/serve/page/client"));
  await step("build", async () => void (await build()));

  const seed = chooseSeed();
  const tests = await bunTest(args, { NIXCACHE_SEED: seed });
  runs.push(tests);
  failures.push(...tests.problems);
  if (args.length === 0) failures.push(...silentFiles(await testFiles(), tests));
  if (newer !== undefined) {
    console.log(`\nonce more, with Nix ${newer.version}`);
    const repeated = await bunTest(REPEATED_WITH_NEWER_NIX, {
      NIXCACHE_SEED: seed,
      ...environmentOf(newer),
    });
    runs.push(repeated);
    const problems = [...repeated.problems, ...silentFiles(REPEATED_WITH_NEWER_NIX, repeated)];
    failures.push(...problems.map((problem) => `with Nix ${newer.version}: ${problem}`));
  }

  // After the tests, so that nothing else wants the processors.
  if (args.length === 0) await step("bench", () => bun("bench/main.ts", "--quick", ...QUICK_ROWS));

  const counts = addCounts(...runs.map((ran) => ran.counts));
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

async function testFiles(): Promise<string[]> {
  const files = await Array.fromAsync(new Bun.Glob("tests/**/*.test.ts").scan({ cwd: ROOT }));
  return files.sort();
}

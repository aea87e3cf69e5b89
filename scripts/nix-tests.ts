/**
 * The tests with a real Nix, with each version of it: `bun run test:nix-versions [SUITE…] [arguments of bun test]`.
 *
 * A suite is Debian's: bookworm has Nix 2.8, trixie 2.26, sid the newest. Without arguments after them the tests are
 * all files that ask for Nix. Closes on the line `N passed, N failed`.
 */
import { build } from "./build.ts";
import { addCounts, bunTest, chooseSeed, silentFiles, type TestRun } from "./bun-test.ts";
import { filesWithNix } from "./nix-test-files.ts";
import { environmentOf, isSuite, nixOf, SUITES } from "./nix-versions.ts";
import { ensureParts, PARTS, type PartName } from "./parts.ts";
import { runScript } from "./process.ts";

const isCi = process.env.CI === "true";

await runScript(async () => {
  const args = process.argv.slice(2);
  const first = args.findIndex((word) => !isSuite(word));
  const named = (first === -1 ? args : args.slice(0, first)).filter(isSuite);
  const rest = first === -1 ? [] : args.slice(first);
  await ensureParts(Object.keys(PARTS) as PartName[], { optional: !isCi });
  await build();
  const seed = chooseSeed();
  const tests = rest.length > 0 ? rest : await filesWithNix();

  const failures: string[] = [];
  const runs: TestRun[] = [];
  for (const suite of named.length > 0 ? named : SUITES) {
    const nix = await nixOf(suite);
    console.log(`\nNix ${nix.version}, of Debian's ${suite}`);
    const ran = await bunTest(tests, { NIXCACHE_SEED: seed, ...environmentOf(nix) });
    runs.push(ran);
    const { passed, failed, skipped } = ran.counts;
    console.log(`\nNix ${nix.version}: ${passed} passed, ${failed} failed, ${skipped.length} skipped`);
    const problems = [...ran.problems, ...(rest.length > 0 ? [] : silentFiles(tests, ran))];
    failures.push(...problems.map((problem) => `with Nix ${nix.version}: ${problem}`));
  }
  const counts = addCounts(...runs.map((ran) => ran.counts));
  if (counts.skipped.length > 0) {
    console.log(`\nskipped:\n${counts.skipped.map((name) => `  ${name}`).join("\n")}`);
    if (isCi) failures.push(`${counts.skipped.length} tests were skipped, which CI=true forbids`);
  }
  for (const failure of failures) console.log(`\nFAILED ${failure}`);
  console.log(`\n${counts.passed} passed, ${counts.failed + failures.length} failed`);
  return counts.failed + failures.length === 0 ? 0 : 1;
});

/**
 * The tests against registries of other people: `bun run test:registries [--record] [files of tests/registries/]`.
 *
 * Runs tests/registries/ against each program that there is, and says of each other one why it is skipped. Fails when
 * there is none, when one that a variable names is not there or does not start, and with CI=true when one is skipped
 * that Go can build. `--record` writes tests/fixtures/registries/ anew instead.
 */
import { parseArgs } from "node:util";
import { build } from "./build.ts";
import { bunTest, chooseSeed } from "./bun-test.ts";
import { ensureParts } from "./parts.ts";
import { run, runScript } from "./process.ts";
import { findRegistryPrograms, REGISTRY_PROGRAMS } from "./registry-programs.ts";

/** Milliseconds one test may take: some registries need a minute for a thousand tags. */
const TEST_TIMEOUT = 600_000;

/** Named one by one: the ordinary run does not look into files without `.test` in their names. */
const SUITE = ["contract", "answers", "limits", "round"].map((name) => `./tests/registries/${name}.ts`);

await runScript(async () => {
  const { values, positionals } = parseArgs({
    options: { record: { type: "boolean", default: false } },
    allowPositionals: true,
  });
  const { programs, skipped } = await findRegistryPrograms();
  for (const sentence of skipped) console.log(sentence);
  if (programs.size === 0) throw new Error("There is no registry to test with, so nothing was tested.");
  const env: Record<string, string> = {};
  for (const [name, file] of programs) {
    console.log(`${name}: ${file}`);
    env[REGISTRY_PROGRAMS[name].variable] = file;
  }
  await ensureParts(["nix", "registry"]);
  if (values.record) return run([process.execPath, "scripts/record-registries.ts"], env);
  await build();

  const tests = positionals.length > 0 ? positionals : SUITE;
  const seed = chooseSeed();
  const { counts, problems } = await bunTest(tests, { ...env, NIXCACHE_SEED: seed }, TEST_TIMEOUT);
  const failures = [...problems];
  if (counts.skipped.length > 0) failures.push(`skipped: ${counts.skipped.join(", ")}`);
  const missing = Object.entries(REGISTRY_PROGRAMS).filter(
    ([name, program]) => "module" in program && !programs.has(name as keyof typeof REGISTRY_PROGRAMS),
  );
  if (process.env.CI === "true" && missing.length > 0)
    failures.push(`CI=true wants all that Go can build: ${missing.map(([name]) => name).join(", ")}`);
  for (const failure of failures) console.log(`\nFAILED ${failure}`);
  for (const sentence of skipped) console.log(sentence);
  const failed = counts.failed + failures.length;
  console.log(`\n${counts.passed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
});

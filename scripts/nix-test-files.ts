/** Which tests ask for a real Nix, and so are worth running with several versions of it. */
import { join } from "node:path";
import { ROOT } from "./process.ts";

/**
 * Those that the ordinary run repeats with a Nix that is newer than the machine's: all that nixcache reads of Nix,
 * writes for it and answers it, in some five minutes.
 */
export const REPEATED_WITH_NEWER_NIX = [
  "tests/contract/nar/keys.nix.test.ts",
  "tests/contract/nar/narinfo.nix.test.ts",
  "tests/contract/nar/signature.nix.test.ts",
  "tests/contract/nix/beside.nix.test.ts",
  "tests/contract/nix/build.nix.test.ts",
  "tests/contract/nix/built.nix.test.ts",
  "tests/contract/nix/discover.nix.test.ts",
  "tests/contract/nix/gc-roots.nix.test.ts",
  "tests/contract/nix/late-outputs.nix.test.ts",
  "tests/contract/nix/selection.nix.test.ts",
  "tests/contract/nix/store.nix.test.ts",
  "tests/contract/nix/valid.nix.test.ts",
  "tests/e2e/attached.test.ts",
  "tests/e2e/doctor.test.ts",
  "tests/e2e/nix-commands.test.ts",
  "tests/e2e/nix-resume.test.ts",
  "tests/e2e/outages.test.ts",
  "tests/e2e/publish-flake.test.ts",
  "tests/e2e/remembered.test.ts",
  "tests/e2e/serve-broken.test.ts",
  "tests/e2e/use.test.ts",
  "tests/e2e/watch.test.ts",
];

/** The files with tests that are skipped where Nix is missing. */
export async function filesWithNix(): Promise<string[]> {
  const files: string[] = [];
  for await (const file of new Bun.Glob("tests/{contract,e2e}/**/*.test.ts").scan({ cwd: ROOT })) {
    if (
      /describeWith\(\[[^\]]*"nix"|\bdescribeWithNix\(|\bhasNix\(\)/.test(
        await Bun.file(join(ROOT, file)).text(),
      )
    )
      files.push(file);
  }
  return files.sort();
}

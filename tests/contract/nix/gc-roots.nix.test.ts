/** What Nix's garbage collector leaves while paths are held. */
import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { hold } from "../../../src/nix/gc-roots.ts";
import { lines } from "../../support/derivation.ts";
import { hasNix, shellDerivation, withNix } from "../../support/nix.ts";

describe.skipIf(!hasNix())("the real Nix", () => {
  test("keeps held paths and what they refer to, and nothing once they are let go", async () => {
    await withNix(async (nix) => {
      const [held, other] = await nix.buildAll(`let
        lower = ${shellDerivation("lower", "mkdir $out")};
      in [ (${shellDerivation("held", `ln -s \${lower} $out`)}) (${shellDerivation("other", "mkdir $out")}) ]`);
      const temporary = join(nix.folder, "a folder");
      await mkdir(temporary);
      const paths = [held as string];
      const invalid = async (path: string) =>
        (await nix.run("nix-store", ["--check-validity", "--print-invalid", path])).trim();
      {
        await using _ = await hold(paths, { env: nix.env, temporary });
        await nix.run("nix-store", ["--gc"]);
        expect(lines(await nix.run("nix-store", ["--query", "--requisites", held as string])).length).toBe(2);
        expect(await invalid(other as string)).toBe(other as string);
      }
      expect(readdirSync(temporary)).toEqual([]);
      await nix.run("nix-store", ["--gc"]);
      expect(await invalid(held as string)).toBe(held as string);
    });
  }, 60_000);

  test("says what it cannot keep", async () => {
    await withNix(async (nix) => {
      const gone = "/nix/store/00000000000000000000000000000000-gone";
      const holding = hold([gone], { env: nix.env, temporary: nix.folder });
      await expect(holding).rejects.toThrow(/cannot keep what was built from the garbage collector: .*gone/);
      expect(readdirSync(nix.folder).filter((name) => name.startsWith("nixcache-roots"))).toEqual([]);
    });
  });
});

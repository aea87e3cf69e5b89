/** Which paths are there, by Nix's database and, where that cannot be read, by Nix. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { validPaths } from "../../../src/nix/valid.ts";
import { hasNix, shellDerivation, withNix } from "../../support/nix.ts";

describe.skipIf(!hasNix())("the real Nix", () => {
  test("its database and its commands know the same paths", async () => {
    await withNix(async (nix) => {
      const before = Math.floor(Date.now() / 1000);
      const path = await nix.build(shellDerivation("there", "mkdir $out"));
      const expression = 'builtins.toFile "text" "words"';
      const args = ["--eval", "--json", "--read-write-mode", "--expr", expression];
      const file: string = JSON.parse(await nix.run("nix-instantiate", args));
      const gone = `/nix/store/${"a".repeat(32)}-gone`;
      const paths = [path, gone, file];

      const known = await validPaths(paths, { env: nix.env });
      expect([...known.keys()].sort()).toEqual([path, file].sort());
      expect(known.get(path)?.ultimate).toBe(true);
      expect(known.get(file)?.ultimate).toBe(false);
      expect(known.get(path)?.registrationTime).toBeGreaterThanOrEqual(before);

      // A daemon stands in for the database that is not here.
      const asked = await validPaths(paths, {
        env: { ...nix.env, NIX_REMOTE: "daemon", NIX_STATE_DIR: join(nix.folder, "none") },
        run: async ([command = "", ...args]) => ({
          exitCode: 0,
          stdout: await nix.run(command, args),
          stderr: "",
        }),
      });
      expect(Object.fromEntries(asked)).toEqual({ [path]: {}, [file]: {} });
      expect(await validPaths([], { env: {} })).toEqual(new Map());
    });
  });
});

/** What we read from Nix's database is what the real Nix says. */
import { describe, expect, test } from "bun:test";
import { readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parsePathInfoJson } from "../../../src/nix/path-info.ts";
import { openNixStore } from "../../../src/nix/store.ts";
import { buildClosure, hasNix, shellDerivation, type TestNix, withNix } from "../../support/nix.ts";

const EXPERIMENTAL = ["--extra-experimental-features", "nix-command flakes"];

describe.skipIf(!hasNix())("the real Nix", () => {
  test("the database's closure is that of nix path-info, and its order that of nix-store", async () => {
    await withNix(async (nix) => {
      const { root, paths } = await buildClosure(nix, { paths: 60, seed: 1 });
      await sign(nix, root);
      const infos = await openNixStore({ env: nix.env }).closure([root]);

      const json = await nix.run("nix", [...EXPERIMENTAL, "path-info", "-r", "--json", root]);
      const byPath = (a: { path: string }, b: { path: string }) => (a.path < b.path ? -1 : 1);
      expect([...infos].sort(byPath)).toEqual(parsePathInfoJson(json, "/nix/store").sort(byPath));

      expect(infos.map((info) => info.path).sort()).toEqual([...paths].sort());
      const seen = new Set<string>();
      for (const info of infos) {
        for (const reference of info.references) {
          if (reference !== info.path) expect(seen).toContain(reference);
        }
        seen.add(info.path);
      }

      // The closure has what the codecs must bear: otherwise this test shows less than it says.
      expect(infos.some((info) => info.references.includes(info.path))).toBe(true);
      expect(infos.some((info) => info.ca?.startsWith("text:"))).toBe(true);
      expect(infos.some((info) => info.ca?.startsWith("fixed:r:"))).toBe(true);
      expect(infos.filter((info) => info.sigs.length === 1).length).toBe(1);
    });
  });

  test("a closure of several roots is that of nix-store --query --requisites", async () => {
    await withNix(async (nix) => {
      const first = await buildClosure(nix, { paths: 10, seed: 2 });
      const second = await buildClosure(nix, { paths: 10, seed: 3 });
      const infos = await openNixStore({ env: nix.env }).closure([second.root, first.root]);
      const expected = await nix.run("nix-store", ["--query", "--requisites", first.root, second.root]);
      expect(infos.map((info) => info.path).sort()).toEqual(expected.trim().split("\n").sort());
    });
  });

  test("Nix's commands give the same closure where the database cannot be read", async () => {
    await withNix(async (nix) => {
      const { root } = await buildClosure(nix, { paths: 20, seed: 4 });
      const fromDatabase = await openNixStore({ env: nix.env }).closure([root]);
      // With a daemon named and no database where NIX_STATE_DIR points, only the commands are left; they are
      // sent back to the real store, for which a daemon would stand in.
      const asked: string[] = [];
      const store = openNixStore({
        env: { ...nix.env, NIX_REMOTE: "daemon", NIX_STATE_DIR: join(nix.folder, "none") },
        run: async ([command = "", ...args]) => {
          asked.push(command);
          return { exitCode: 0, stdout: await nix.run(command, args), stderr: "" };
        },
      });
      expect(await store.closure([root])).toEqual(fromDatabase);
      expect(await store.resolve(root)).toBe(root);
      expect(asked).toEqual(["nix-store", "nix", "nix-store"]);
    });
  });

  test("reading leaves no files in Nix's folder, and Nix works on afterwards", async () => {
    await withNix(async (nix) => {
      if (nix.root === undefined) return;
      const path = await nix.build(shellDerivation("before", "echo before > $out"));
      const folder = join(nix.root, "nix/var/nix/db");
      const before = readdirSync(folder).sort();
      await openNixStore({ env: nix.env }).closure([path]);
      expect(readdirSync(folder).sort()).toEqual(before);
      await nix.build(shellDerivation("after", "echo after > $out"));
    });
  });

  test("the link that nix-build leaves, and paths below it", async () => {
    await withNix(async (nix) => {
      const path = await nix.build(shellDerivation("tool", "mkdir -p $out/bin; echo 1 > $out/bin/tool"));
      symlinkSync(path, join(nix.folder, "result"));
      const store = openNixStore({ env: nix.env, cwd: nix.folder });
      expect(await store.resolve("./result")).toBe(path);
      expect(await store.resolve("result/bin/tool")).toBe(path);
      expect(await Bun.file(join(store.realPath(path), "bin/tool")).text()).toBe("1\n");
    });
  });

  test("a path that was added and deleted again is not valid", async () => {
    await withNix(async (nix) => {
      const file = join(nix.folder, "a-file");
      writeFileSync(file, "content");
      const path = (await nix.run("nix-store", ["--add", file])).trim();
      const store = openNixStore({ env: nix.env });
      expect(await store.resolve(path)).toBe(path);
      await nix.run("nix-store", ["--delete", path]);
      await expect(store.resolve(path)).rejects.toThrow("is not a valid path of the Nix store");
    });
  });
});

async function sign(nix: TestNix, path: string): Promise<void> {
  const key = join(nix.folder, "secret.key");
  await nix.run("nix-store", ["--generate-binary-cache-key", "test-1", key, join(nix.folder, "public.key")]);
  await nix.run("nix", [...EXPERIMENTAL, "store", "sign", "--key-file", key, path]);
}

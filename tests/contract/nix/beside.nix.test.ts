/** Build logs and realisations are read as the real Nix gives them out. */
import { expect, test } from "bun:test";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { formatRealisation, realisationPath, signRealisation } from "../../../src/nar/realisation.ts";
import { formatSecretKey, generateSecretKey } from "../../../src/nar/signing-key.ts";
import { openNixStore } from "../../../src/nix/store.ts";
import { CONTENT_ADDRESSED, contentAddressed, recordsDependents } from "../../support/content-addressed.ts";
import { describeWith } from "../../support/needs.ts";
import { shellDerivation, withNix } from "../../support/nix.ts";

describeWith(["nix"], "the real Nix", () => {
  test("a build log has the bytes that nix-store --read-log prints, packed or plain", async () => {
    await withNix(async (nix) => {
      const script = "echo one; echo 'two ä' >&2; seq 20000; mkdir $out";
      for (const [name, ...flags] of [["packed"], ["plain", "--option", "compress-build-log", "false"]]) {
        const file = join(nix.folder, `${name}.nix`);
        await Bun.write(file, shellDerivation(name as string, script));
        const path = (await nix.run("nix-build", ["--no-out-link", ...flags, file])).trim();
        const store = openNixStore({ env: nix.env });
        const deriver = (await store.closure([path])).find((info) => info.path === path)?.deriver as string;
        const theirs = await nix.run("nix-store", ["--read-log", path]);
        expect(theirs).toContain("two ä\n1\n2\n");
        expect(Buffer.from(store.buildLog(deriver) as Uint8Array).toString()).toBe(theirs);
      }
    });
  });

  test("a path that was added has no log, and a store without the feature no realisations", async () => {
    await withNix(async (nix) => {
      const path = (await nix.run("nix-store", ["--add", nix.env.HOME as string])).trim();
      const store = openNixStore({ env: nix.env });
      expect(store.buildLog("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a.drv")).toBeUndefined();
      expect(store.realisations([path]).size).toBe(0);
    });
  });

  test("realisations have the bytes that nix copy writes into a binary cache", async () => {
    await withNix(async (nix) => {
      const file = join(nix.folder, "ca.nix");
      await Bun.write(file, contentAddressed());
      const top = (await nix.run("nix-build", [...CONTENT_ADDRESSED, "--no-out-link", file])).trim();
      const cache = join(nix.folder, "cache");
      await nix.run("nix", [...CONTENT_ADDRESSED, "copy", "--to", `file://${cache}`, "-f", file]);
      const store = openNixStore({ env: nix.env });
      const closure = (await store.closure([top])).map(({ path }) => path);
      const ours = new Map(
        [...store.realisations(closure).values()]
          .flat()
          .map((realisation) => [realisationPath(realisation), formatRealisation(realisation)]),
      );
      const names = await readdir(join(cache, "realisations"));
      expect(names.length).toBe(recordsDependents() ? 2 : 1);
      for (const name of names) {
        expect(ours.get(`realisations/${name}`)).toBe(
          await readFile(join(cache, "realisations", name), "utf8"),
        );
      }
      const withDependents = [...ours.values()].filter((text) => text.includes('ealisations":{"sha256:'));
      expect(withDependents.length).toBe(recordsDependents() ? 1 : 0);
    });
  });

  test("our signature of a realisation is the one that Nix makes with the same key", async () => {
    await withNix(async (nix) => {
      const file = join(nix.folder, "ca.nix");
      await Bun.write(file, contentAddressed());
      const key = generateSecretKey("realisations-1", new Uint8Array(32).fill(9));
      const keyFile = join(nix.folder, "secret");
      await Bun.write(keyFile, formatSecretKey(key));
      const sign = ["--option", "secret-key-files", keyFile];
      const top = (await nix.run("nix-build", [...CONTENT_ADDRESSED, ...sign, "--no-out-link", file])).trim();
      const store = openNixStore({ env: nix.env });
      const closure = (await store.closure([top])).map(({ path }) => path);
      const realisations = [...store.realisations(closure).values()].flat();
      const withDependents = realisations.filter(
        (each) => Object.keys(each.dependentRealisations).length > 0,
      );
      expect(withDependents.length).toBe(recordsDependents() ? 1 : 0);
      expect(realisations.length).toBeGreaterThan(1);
      for (const realisation of realisations) {
        expect(realisation.signatures).toHaveLength(1);
        expect(signRealisation({ ...realisation, signatures: [] }, key).signatures).toEqual(
          realisation.signatures,
        );
      }
    });
  });
});

/** Narinfos and content addresses as Nix writes them, and ours as Nix reads them. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  contentAddressStorePath,
  isContentAddressed,
  parseContentAddress,
} from "../../../src/nar/content-address.ts";
import { dumpNar } from "../../../src/nar/dump.ts";
import { createHasher } from "../../../src/nar/hash.ts";
import { formatNarInfo, parseNarInfo } from "../../../src/nar/narinfo.ts";
import { parseStorePath } from "../../../src/nar/store-path.ts";
import { parsePathInfoJson } from "../../../src/nix/path-info.ts";
import { describeWithNix, PrivateNix } from "./nix.ts";

describeWithNix("narinfo", () => {
  let nix: PrivateNix;
  beforeEach(() => {
    nix = new PrivateNix();
  });
  afterEach(() => nix.remove());

  /** A closure with texts, a derivation's output with references and a self-reference, and its CA twin. */
  const populate = (): void => {
    writeFileSync(
      nix.path("objects.nix"),
      `let dep = builtins.toFile "dep" "dep"; other = n: builtins.toFile "other" n; in {
        text = builtins.toFile "text" "see \${dep} \${other "1"} \${other "2"} \${other "3"}";
        self = derivation {
          name = "self-1.0"; system = builtins.currentSystem; builder = "/bin/sh";
          args = [ "-c" "echo $out \${dep} > $out" ];
        };
      }`,
    );
    nix.run(["nix-instantiate", "--eval", "--read-write-mode", nix.path("objects.nix"), "-A", "text"]);
    const output = nix.run(["nix-build", nix.path("objects.nix"), "-A", "self", "--no-out-link"]);
    nix.run(["nix", "store", "make-content-addressed", output]);
    mkdirSync(nix.path("tree"));
    writeFileSync(nix.path("tree/file"), "contents\n");
    for (const algorithm of ["md5", "sha1", "sha256", "sha512"]) {
      nix.run(["nix-store", "--add-fixed", algorithm, nix.path("tree/file")]);
      nix.run(["nix-store", "--add-fixed", "--recursive", algorithm, nix.path("tree")]);
    }
  };

  const narinfos = (folder: string): string[] =>
    readdirSync(folder)
      .filter((name) => name.endsWith(".narinfo"))
      .map((name) => readFileSync(join(folder, name), "utf8"));

  test("what `nix copy` writes parses, and formats back to the same bytes", () => {
    populate();
    nix.run(["nix-store", "--generate-binary-cache-key", "k-1", nix.path("secret"), nix.path("public")]);
    nix.run(["nix", "store", "sign", "-k", nix.path("secret"), "--all"]);
    for (const compression of ["none", "xz", "bzip2", "gzip", "zstd", "br"]) {
      const cache = nix.path(`cache-${compression}`);
      nix.run(["nix", "copy", "--to", `file://${cache}?compression=${compression}`, "--all"]);
      const texts = narinfos(cache);
      expect(texts.length).toBeGreaterThanOrEqual(13);
      for (const text of texts) {
        const info = parseNarInfo(text, "narinfo", nix.storeDir);
        expect(info.compression).toBe(compression);
        expect(formatNarInfo(info)).toBe(text);
      }
      const all = texts.join("");
      for (const field of ["Deriver: ", "CA: text:", "CA: fixed:r:", "CA: fixed:sha1:", "Sig: k-1:"]) {
        expect(all).toContain(`\n${field}`);
      }
    }
  });

  test("NAR hash and size are those of our dump", async () => {
    populate();
    nix.run(["nix", "copy", "--to", `file://${nix.path("cache")}`, "--all"]);
    for (const text of narinfos(nix.path("cache"))) {
      const info = parseNarInfo(text, "narinfo", nix.storeDir);
      const hasher = await createHasher("sha256");
      let size = 0;
      for await (const chunk of dumpNar(info.storePath)) {
        hasher.update(chunk);
        size += chunk.length;
      }
      const theirs = nix.run([
        "nix-hash",
        "--type",
        "sha256",
        "--to-base16",
        info.narHash.slice("sha256:".length),
      ]);
      expect(hasher.digest().toHex()).toBe(theirs);
      expect(size).toBe(info.narSize);
    }
  });

  test("every content address gives the store path that Nix gave", () => {
    populate();
    const infos = JSON.parse(nix.run(["nix", "path-info", "--json", "--all"]));
    // Nix 2.19 and later print an object by path, 2.8 a list.
    const list: { path: string; references: string[]; ca?: string }[] = Array.isArray(infos)
      ? infos
      : Object.entries(infos).map(([path, info]) => ({ ...(info as object), path }) as never);
    const kinds = new Set<string>();
    let selfReferences = 0;
    for (const info of list) {
      const own = parseStorePath(info.path, nix.storeDir);
      const names = info.references.map((path) => parseStorePath(path, nix.storeDir).baseName);
      if (!info.ca) {
        expect(isContentAddressed({ storePath: own.path, references: names }, nix.storeDir)).toBe(false);
        continue;
      }
      kinds.add(info.ca.slice(0, info.ca.lastIndexOf(":")));
      const others = names.filter((name) => name !== own.baseName);
      const self = others.length < names.length;
      if (self) selfReferences++;
      const address = parseContentAddress(info.ca, own.path);
      expect(contentAddressStorePath(own.name, address, { others, self }, nix.storeDir)).toBe(own.path);
    }
    expect(kinds.size).toBe(9);
    expect(selfReferences).toBe(1);
    expect(list.some(({ path, references }) => path.endsWith("-text") && references.length === 4)).toBe(true);
  });

  test("a narinfo that we write, Nix reads as we meant it", () => {
    populate();
    const cache = nix.path("cache");
    nix.run(["nix", "copy", "--to", `file://${cache}`, "--all"]);
    for (const name of readdirSync(cache).filter((file) => file.endsWith(".narinfo"))) {
      const info = parseNarInfo(readFileSync(join(cache, name), "utf8"), name, nix.storeDir);
      delete info.fileHash;
      delete info.fileSize;
      writeFileSync(join(cache, name), formatNarInfo({ ...info, references: info.references.toReversed() }));
    }
    const theirs = nix.run(["nix", "path-info", "--store", `file://${cache}`, "--json", "--all"]);
    const original = nix.run(["nix", "path-info", "--json", "--all"]);
    const strip = (text: string): unknown =>
      parsePathInfoJson(text, nix.storeDir)
        .map(({ path, narHash, narSize, references, ca }) => ({ path, narHash, narSize, references, ca }))
        .sort((left, right) => (left.path < right.path ? -1 : 1));
    expect(strip(theirs)).toEqual(strip(original));
    expect(nix.run(["nix", "store", "verify", "--store", `file://${cache}`, "--no-trust", "--all"])).toBe("");
  });
});

/** `dumpNar` against `nix-store --dump`, on trees that are made here. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  chmodSync,
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { dumpNar } from "../../../src/nar/dump.ts";
import { ListingBuilder } from "../../../src/nar/listing.ts";
import { NarReader } from "../../../src/nar/reader.ts";
import { describeWithNix, PrivateNix } from "./nix.ts";

async function hashDump(path: string): Promise<{ sha256: string; size: number }> {
  const hasher = new Bun.CryptoHasher("sha256");
  // Every dump goes through the reader too: what Nix writes, it must accept.
  const reader = new NarReader();
  let size = 0;
  for await (const chunk of dumpNar(path)) {
    hasher.update(chunk);
    reader.write(chunk);
    size += chunk.length;
  }
  reader.end();
  return { sha256: hasher.digest("hex"), size };
}

describeWithNix("dump", () => {
  let nix: PrivateNix;
  beforeAll(() => {
    nix = new PrivateNix();
  });
  afterAll(() => nix.remove());

  const same = async (path: string): Promise<void> => {
    expect(await hashDump(path)).toEqual(await nix.hashOutput(["nix-store", "--dump", path]));
  };

  test("every kind of node, with every size of padding", async () => {
    const path = nix.path("kinds");
    mkdirSync(join(path, "empty"), { recursive: true });
    for (let size = 0; size <= 17; size++) writeFileSync(join(path, `size-${size}`), "x".repeat(size));
    mkdirSync(join(path, "deep/a/b/c/d"), { recursive: true });
    writeFileSync(join(path, "deep/a/b/c/d/e"), "end");
    for (const mode of [0o755, 0o744, 0o700, 0o655, 0o611, 0o644, 0o4755]) {
      const file = join(path, `mode-${mode.toString(8)}`);
      writeFileSync(file, "#!/bin/sh\n");
      chmodSync(file, mode);
    }
    symlinkSync("nowhere", join(path, "dangling"));
    symlinkSync("deep/a", join(path, "folder-link"));
    symlinkSync("size-3", join(path, "file-link"));
    symlinkSync("x".repeat(4095), join(path, "longest-target"));
    symlinkSync(Buffer.from([0xff, 0xfe]), join(path, "odd-target"));
    await same(path);
    await same(join(path, "size-3"));
    await same(join(path, "size-0"));
    await same(join(path, "dangling"));
    await same(join(path, "folder-link"));
    await same(join(path, "empty"));
    await same(join(path, "mode-755"));
  });

  test("names in odd encodings, and those whose order in UTF-16 is another", async () => {
    const path = nix.path("names");
    mkdirSync(path);
    const names = [
      Buffer.from([0xff]),
      Buffer.from([0xc3, 0x28]),
      Buffer.from([0x80, 0x2e, 0x01]),
      Buffer.from("\u{1f600}"),
      Buffer.from("\ufffd"),
      Buffer.from("\ue000"),
      Buffer.from("\ufeffbom"),
      Buffer.from("new\nline"),
      Buffer.from('quote"\\'),
      Buffer.from("..."),
      Buffer.from(" "),
      Buffer.from("10"),
      Buffer.from("9"),
      Buffer.from("a"),
      Buffer.from("B"),
      Buffer.from("ä"),
      Buffer.from("a\u0308"),
      Buffer.from("__proto__"),
      Buffer.from("x".repeat(255)),
      Buffer.from("a.b"),
      Buffer.from("a-b"),
    ];
    for (const name of names) {
      const entry = Buffer.concat([Buffer.from(`${path}/`), name]);
      mkdirSync(entry);
      writeFileSync(Buffer.concat([entry, Buffer.from("/"), name]), name);
    }
    await same(path);
  });

  test("10,000 files in one folder", async () => {
    const path = nix.path("many");
    mkdirSync(path);
    for (let index = 0; index < 10_000; index++)
      writeFileSync(join(path, `${index}`), `${index}\n`.repeat(index % 50));
    await same(path);
  });

  test("sizes around the borders of chunks", async () => {
    const path = nix.path("sizes");
    mkdirSync(path);
    for (const base of [65_536, 262_144, 1_048_576]) {
      for (let difference = -200; difference <= 200; difference += 25) {
        const size = base + difference;
        writeFileSync(join(path, `${size}`), Buffer.alloc(size, size));
      }
    }
    await same(path);
  });

  test("a sparse file of more than 4 GiB", async () => {
    const path = nix.path("sparse");
    const fd = openSync(path, "w");
    ftruncateSync(fd, 4 * 1024 ** 3 + 5);
    writeSync(fd, "in the middle", 3_000_000_001);
    writeSync(fd, "end", 4 * 1024 ** 3 + 2);
    closeSync(fd);
    await same(path);
  }, 120_000);

  test("the listing is the one of `nix copy`, and so is the JSON of `nix store ls`", async () => {
    const path = nix.path("listed");
    mkdirSync(join(path, "a/empty"), { recursive: true });
    writeFileSync(join(path, "a/10"), "ten");
    writeFileSync(join(path, "a/9"), "");
    writeFileSync(join(path, "a/ü \u{1f600}"), "x".repeat(100));
    chmodSync(join(path, "a/9"), 0o755);
    symlinkSync('quote"\\\t', join(path, "link"));
    const builder = new ListingBuilder();
    const reader = new NarReader(builder);
    for await (const chunk of dumpNar(path)) reader.write(chunk);
    reader.end();
    const ours = JSON.parse(builder.text ?? "");

    const storePath = nix.run(["nix-store", "--add", path]);
    nix.run(["nix", "copy", "--to", `file://${nix.path("cache")}?write-nar-listing=true`, storePath]);
    const hash = storePath.slice(nix.storeDir.length + 1, nix.storeDir.length + 33);
    const theirs = await Bun.file(nix.path(`cache/${hash}.ls`)).json();
    expect(ours).toEqual(theirs);
    // From a binary cache `ls` has offsets, as it reads the listing.
    const listed = nix.run([
      ...["nix", "store", "ls", "--store", `file://${nix.path("cache")}`],
      ...["--json", "--recursive", storePath],
    ]);
    expect(JSON.parse(listed)).toEqual(ours.root);
  });
});

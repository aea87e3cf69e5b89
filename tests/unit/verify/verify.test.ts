import { describe, expect, test } from "bun:test";
import { type Entry, encodeEntry, entryOf, formatLine, parseLine } from "../../../src/cache/entry.ts";
import { ROOT_TAG, segmentTag } from "../../../src/cache/tags.ts";
import { NixcacheError } from "../../../src/errors.ts";
import { encodeBase32 } from "../../../src/nar/base32.ts";
import { formatNarInfo } from "../../../src/nar/narinfo.ts";
import { signNarInfo } from "../../../src/nar/signature.ts";
import { formatPublicKey, generateSecretKey, publicKeyOf } from "../../../src/nar/signing-key.ts";
import { type Digest, digestOf } from "../../../src/oci/digest.ts";
import { decodeManifest } from "../../../src/oci/manifest.ts";
import { sweep } from "../../../src/protocol/end.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { GenerationWriter } from "../../../src/protocol/generation.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { Compressor } from "../../../src/publish/nar-file.ts";
import { publish } from "../../../src/publish/publish.ts";
import { silentProgress } from "../../../src/terminal/progress.ts";
import type { Upstream } from "../../../src/upstream/client.ts";
import { repair } from "../../../src/verify/repair.ts";
import { verify } from "../../../src/verify/verify.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { party, storeHash, type TestParty, testEntry, testRecord } from "../../support/protocol.ts";
import { narInfoOf, noise, pathOf, type TestPath, testClosure } from "../../support/publish.ts";
import { memoryUpstream } from "../../support/upstream-double.ts";

const KEY = generateSecretKey("test-1", new Uint8Array(32).fill(7));

async function publishPaths(machine: TestParty, paths: readonly TestPath[]) {
  const { closure, dump } = testClosure(paths);
  return publish(
    closure,
    { tool: "test", source: "paths", roots: {} },
    {
      ...machine,
      upstreams: [],
      dump,
      key: KEY,
      compressor: new Compressor(3, 2),
      partBytes: 1 << 30,
      unitsAtOnce: 4,
      progress: silentProgress(),
    },
  );
}

const check = (machine: TestParty, deep = false, upstreams: Upstream[] = []) =>
  verify({ ...machine, upstreams, keys: [] }, { deep });

async function blobOf(machine: TestParty, name: string): Promise<Digest> {
  await refresh(machine, { list: true });
  const line = machine.database.view.line(storeHash(name));
  return (line && entryOf(line).parts[0]?.blob) as Digest;
}

const BIG = 1_100_000;
const PATHS: TestPath[] = [
  { name: "lib", size: BIG },
  { name: "app", size: BIG, references: ["lib", "app"] },
  { name: "other", size: BIG },
  { name: "small" },
];

async function cacheOf(paths = PATHS) {
  const store = new MemoryStore();
  const machine = party(store);
  await publishPaths(machine, paths);
  return { store, machine };
}

describe("verify", () => {
  test("a cache that was published is clean, also byte for byte", async () => {
    const { machine } = await cacheOf();
    using _ = machine;
    for (const deep of [false, true]) {
      const { findings, counts } = await check(machine, deep);
      expect(findings).toEqual([]);
      expect(counts).toMatchObject({ generations: 1, entries: 4, blobs: 4, unsigned: 0 });
    }
  });

  test("defect 13: a blob that is gone is found, and the repair leaves out its path and what needs it", async () => {
    const { store, machine } = await cacheOf();
    using _ = machine;
    const lost = await blobOf(machine, "lib");
    store.blobs.delete(lost);
    const verification = await check(machine);
    expect(verification.findings).toMatchObject([{ kind: "blob-missing", subject: lost }]);
    const { replaced, lost: paths } = await repair(machine, verification);
    expect(replaced).toHaveLength(1);
    expect([...paths].sort()).toEqual(["lib", "app"].map(pathOf).sort());
    using reader = party(store);
    expect((await check(reader, true)).findings).toEqual([]);
    await refresh(reader, { list: true });
    for (const [name, there] of [
      ["lib", false],
      ["app", false],
      ["other", true],
      ["small", true],
    ] as const) {
      expect(reader.database.view.narinfo(storeHash(name)) !== undefined).toBe(there);
    }
    // A day later gc deletes the damaged segment, and it does not come back.
    machine.host.time += 27 * 3_600_000;
    await sweep(machine);
    expect(store.tagsOf("dead-")).toEqual([]);
    expect(store.tagsOf("seg-")).toHaveLength(1);
    store.collect();
    expect((await check(reader, true)).findings).toEqual([]);
    // Publishing again brings back what was lost.
    await publishPaths(machine, PATHS);
    expect((await check(reader, true)).counts.entries).toBe(4);
  });

  test("a path that another generation has in other blobs is not lost", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { line, blob } = testEntry("a");
    const packed = Buffer.concat([Buffer.from("another path"), blob.content]);
    const pack = { digest: digestOf(packed), size: packed.length, content: packed };
    const parts = [{ blob: pack.digest, size: pack.size, offset: 12, length: blob.size }];
    const inPack = encodeEntry({ ...entryOf(line), parts });
    for (const [entry, content] of [
      [line, blob],
      [inPack, pack],
    ] as const) {
      await store.writeBlob(content);
      await new GenerationWriter(machine, {}).commit(testRecord([entry], machine.host), [entry], [content]);
      machine.host.time += 60_000;
    }
    await fold(machine);
    store.blobs.delete(pack.digest);
    const verification = await check(machine);
    expect(verification.findings).toMatchObject([{ kind: "blob-missing", subject: pack.digest }]);
    const { replaced, lost } = await repair(machine, verification);
    expect([replaced.length, lost]).toEqual([1, []]);
    expect((await check(machine)).findings).toEqual([]);
    await refresh(machine, { list: true });
    expect(machine.database.view.line(storeHash("a"))).toEqual(line);
  });

  test("wrong bytes are found by --deep, a wrong size without", async () => {
    const { store, machine } = await cacheOf();
    using _ = machine;
    const digest = await blobOf(machine, "other");
    const bytes = store.blobs.get(digest) as Uint8Array<ArrayBuffer>;
    const flipped = bytes.slice();
    flipped[1000] = (flipped[1000] as number) ^ 1;
    store.blobs.set(digest, flipped);
    expect((await check(machine)).findings).toEqual([]);
    expect((await check(machine, true)).findings).toMatchObject([{ kind: "blob-corrupt", subject: digest }]);
    store.blobs.set(digest, bytes.slice(1));
    expect((await check(machine)).findings).toMatchObject([{ kind: "blob-size", subject: digest }]);
  });

  test("a NAR that is not what its narinfo says, although its blob is right, is found by --deep", async () => {
    const { store, machine } = await cacheOf();
    using _ = machine;
    await refresh(machine, { list: true });
    const line = machine.database.view.line(storeHash("other"));
    const text = formatLine(line as never).replace(/NarSize: \d+/, "NarSize: 17");
    const wrong = parseLine(text, "line");
    const parts = entryOf(wrong).parts.map(({ blob, size }) => ({ digest: blob, size }));
    await new GenerationWriter(machine, {}).commit(testRecord([wrong], machine.host), [wrong], parts);
    const { findings } = await check(machine, true);
    expect(findings.map(({ kind }) => kind).sort()).toEqual(["nar-corrupt", "root-behind", "signature-bad"]);
    expect((await check(machine)).findings).toHaveLength(2);
    expect(store.tagsOf("seg-")).toHaveLength(2);
  });

  test("a listing or a log that is gone or wrong is found, and the repair drops it alone", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const blobOfText = (text: string | Uint8Array<ArrayBuffer>) => {
      const content = Bun.zstdCompressSync(text);
      return { digest: digestOf(content), size: content.length, content };
    };
    const files = {
      listing: blobOfText('{"version":1,"root":{"type":"regular","size":1,"narOffset":96}}'),
      noJson: blobOfText('{"version":1,'),
      log: blobOfText("log"),
      gone: blobOfText("gone"),
    };
    const noZstd = { digest: digestOf("plain"), size: 5, content: Buffer.from("plain") };
    const partOf = ({ digest, size }: { digest: Digest; size: number }) => ({
      ...{ blob: digest, size, offset: 0, length: size },
    });
    const { nar, closure } = narOfPath("a");
    const entries = [
      { name: "whole", listing: files.listing, log: files.log },
      { name: "no-json", listing: files.noJson, log: files.log },
      { name: "no-zstd", listing: files.listing, log: noZstd },
      { name: "gone", listing: files.listing, log: files.gone },
    ].map(({ name, listing, log }) => ({
      ...closure(name),
      listing: partOf(listing),
      attached: { [`log/${name}.drv`]: { part: partOf(log) }, "realisations/x!out.doi": { text: "{}" } },
    }));
    for (const blob of [nar, noZstd, ...Object.values(files)]) await store.writeBlob(blob);
    const lines = entries.map(encodeEntry);
    const blobs = [nar, noZstd, ...Object.values(files)];
    await new GenerationWriter(machine, {}).commit(testRecord(lines, machine.host), lines, blobs);
    await fold(machine);
    store.blobs.delete(files.gone.digest);

    expect((await check(machine)).findings).toMatchObject([
      { kind: "blob-missing", subject: files.gone.digest },
    ]);
    const verification = await check(machine, true);
    const found = verification.findings.map(({ kind, subject }) => [kind, subject]);
    expect(found.sort()).toEqual([
      ["blob-missing", files.gone.digest],
      ["file-corrupt", pathOf("no-json")],
      ["file-corrupt", pathOf("no-zstd")],
    ]);
    expect(verification.bad.size).toBe(0);
    machine.host.time += 60_000;
    const { replaced, lost } = await repair(machine, verification);
    expect([replaced.length, lost]).toEqual([1, []]);

    expect((await check(machine, true)).findings).toEqual([]);
    await refresh(machine, { list: true });
    const { view } = machine.database;
    for (const [name, listing, log] of [
      ["whole", true, true],
      ["no-json", false, true],
      ["no-zstd", true, false],
      ["gone", true, false],
    ] as const) {
      expect(view.narinfo(storeHash(name))).toBeDefined();
      expect([
        view.listing(storeHash(name)) !== undefined,
        view.attached(`log/${name}.drv`) !== undefined,
      ]).toEqual([listing, log]);
    }
    expect(view.attached("realisations/x!out.doi")).toEqual({ text: "{}" });
  });

  test("a reference that is nowhere is found; one that an upstream has, or that cannot be asked for, is not", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    await publishPaths(machine, PATHS);
    const entry = testEntry("lonely");
    const info = { ...entryOf(entry.line).info, references: [pathOf("nowhere").slice(11)] };
    const lonely = encodeEntry({ ...entryOf(entry.line), info });
    await store.writeBlob(entry.blob);
    await new GenerationWriter(machine, {}).commit(
      testRecord([lonely], machine.host),
      [lonely],
      [entry.blob],
    );
    await fold(machine);
    const upstream = (answer: () => Promise<string | undefined>) =>
      memoryUpstream("https://upstream", answer);
    const narinfo = (name: string, sigs: string[] = []) => formatNarInfo({ ...narInfoOf({ name }), sigs });
    const has = upstream(async () => narinfo("nowhere"));
    const hasAnother = upstream(async () => narinfo("another"));
    const signer = generateSecretKey("up-1", new Uint8Array(32).fill(1));
    const keys = [publicKeyOf(signer)];
    const lies = { ...has, keys };
    const signed = upstream(async () =>
      narinfo("nowhere", [signNarInfo(narInfoOf({ name: "nowhere" }), signer)]),
    );
    const hasNot = upstream(async () => undefined);
    const dead = upstream(async () => {
      throw new NixcacheError("unreachable", "down");
    });
    for (const [upstreams, count] of [
      [[], 1],
      [[hasNot], 1],
      [[hasNot, has], 0],
      [[hasAnother], 1],
      [[lies], 1],
      [[lies, { ...signed, keys }], 0],
      [[dead], 0],
    ] as const) {
      expect((await check(machine, false, [...upstreams])).findings).toHaveLength(count);
    }
    const doubted = "upstream https://upstream: … does not count as there: …";
    expect(
      machine.warnings.map((text) => text.replace(/\/nix\/store\/.*( does not count as there: ).*/, "…$1…")),
    ).toEqual([
      ...[doubted, doubted, doubted],
      "upstream https://upstream cannot be asked, so it may have what is missing: down",
    ]);
  });

  test("a segment whose index layer is gone or damaged is found; the repair ends it, and readers read again", async () => {
    for (const damage of ["gone", "other bytes"]) {
      const { store, machine } = await cacheOf();
      using _ = machine;
      const name = (await publishPaths(machine, [{ name: "late" }])).generation as string;
      store.tags.delete(ROOT_TAG);
      const manifest = store.manifests.get(store.tags.get(segmentTag(name)) as Digest);
      const layer = decodeManifest(manifest?.bytes as Uint8Array, name).layers[0]?.digest as Digest;
      if (damage === "gone") store.blobs.delete(layer);
      else store.blobs.set(layer, new Uint8Array(10));
      using reader = party(store);
      await expect(refresh(reader)).rejects.toMatchObject({ code: "corrupt" });
      const verification = await check(machine);
      expect(verification.findings[0]).toMatchObject({
        kind: "segment-unreadable",
        subject: segmentTag(name),
      });
      await repair(machine, verification);
      await refresh(reader);
      expect(reader.database.view.count()).toBe(4);
      expect((await check(reader)).findings).toEqual([]);
    }
  });

  test("what only costs time is told apart: a segment outside the root, a hold without a segment", async () => {
    const { store, machine } = await cacheOf();
    using _ = machine;
    store.tags.delete(ROOT_TAG);
    const writer = new GenerationWriter(machine, {});
    for (let i = 0; i < 400; i++) {
      const { blob } = testEntry(`held-${i}`);
      await store.writeBlob(blob);
      await writer.uploaded(blob);
    }
    const verification = await check(machine);
    expect(verification.findings.map(({ kind }) => kind).sort()).toEqual(["hold-orphan", "root-behind"]);
    await repair(machine, verification);
    expect((await check(machine)).findings.map(({ kind }) => kind)).toEqual(["hold-orphan"]);
    // A hold of a copy says which generation it is of.
    const [of = ""] = store.tagsOf("seg-");
    const another = new GenerationWriter(machine, { holdsFor: of.slice("seg-".length) });
    await another.uploaded(testEntry("held-0").blob);
    await another.holdAll();
    expect((await check(machine)).findings.map(({ kind }) => kind)).toEqual(["hold-orphan"]);
  });

  test("a bad signature by a publisher's key is found, one by an unknown key is not", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const sigs = [
      `test-1:${Buffer.alloc(64).toString("base64")}`,
      `else-1:${Buffer.alloc(64).toString("base64")}`,
    ];
    const { line, blob } = testEntry("a", { sigs });
    await store.writeBlob(blob);
    const record = testRecord([line], machine.host, { keys: [formatPublicKey(publicKeyOf(KEY))] });
    await new GenerationWriter(machine, {}).commit(record, [line], [blob]);
    await fold(machine);
    const { findings, counts } = await check(machine);
    expect(findings).toMatchObject([{ kind: "signature-bad" }]);
    expect(findings[0]?.detail).toContain("test-1");
    expect(counts.unsigned).toBe(1);
  });
});

/** A NAR's blob, and entries that have it. */
function narOfPath(content: string) {
  const bytes = noise(content, 500);
  const packed = Bun.zstdCompressSync(bytes);
  const hash = (of: Uint8Array) => encodeBase32(new Bun.CryptoHasher("sha256").update(of).digest());
  const nar = { digest: digestOf(packed), size: packed.length, content: packed };
  const closure = (name: string): Entry => ({
    info: {
      storePath: pathOf(name),
      url: `nar/${hash(packed)}.nar.zst`,
      compression: "zstd",
      fileHash: `sha256:${hash(packed)}`,
      fileSize: packed.length,
      narHash: `sha256:${hash(bytes)}`,
      narSize: bytes.length,
      references: [],
      sigs: [],
    },
    parts: [{ blob: nar.digest, size: nar.size, offset: 0, length: nar.size }],
    added: 1_700_000_000,
  });
  return { nar, closure };
}

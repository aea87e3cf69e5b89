/** What publish puts beside NARs: listings, build logs, realisations. */

import { describe, expect, test } from "bun:test";
import { entryOf } from "../../../src/cache/entry.ts";
import type { Part } from "../../../src/cache/part.ts";
import { NixcacheError } from "../../../src/errors.ts";
import { encodeBase32 } from "../../../src/nar/base32.ts";
import { NarReader } from "../../../src/nar/reader.ts";
import type { Realisation } from "../../../src/nar/realisation.ts";
import { generateSecretKey } from "../../../src/nar/signing-key.ts";
import type { PathInfo } from "../../../src/nix/store.ts";
import { readPackedFile } from "../../../src/protocol/packed-file.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { Compressor } from "../../../src/publish/nar-file.ts";
import { type PublishContext, publish } from "../../../src/publish/publish.ts";
import { readNar } from "../../../src/serve/nar.ts";
import { silentProgress } from "../../../src/terminal/progress.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { party, storeHash } from "../../support/protocol.ts";
import { noise, pathInfo, pathOf } from "../../support/publish.ts";
import { bytesOf, narOf } from "../nar/archives.ts";

const KEY = generateSecretKey("test-1", new Uint8Array(32).fill(7));
const OTHER_KEY = generateSecretKey("test-2", new Uint8Array(32).fill(8));

interface RealPath {
  readonly name: string;
  /** Bytes of its one file. */
  readonly size?: number;
  readonly content?: string;
  /** Name of the derivation. */
  readonly deriver?: string;
}

const drv = (name: string) => `${storeHash(`${name}.drv`)}-${name}.drv`;

/** Paths with real NARs, each of one file. */
function realPaths(paths: readonly RealPath[]) {
  const nars = new Map<string, Uint8Array>();
  const closure = paths.map(({ name, size = 300, content = name, deriver }): PathInfo => {
    const nar = narOf({ type: "regular", executable: false, contents: noise(content, size) });
    nars.set(pathOf(name), nar);
    return {
      ...pathInfo({ name }),
      narHash: `sha256:${encodeBase32(new Bun.CryptoHasher("sha256").update(nar).digest())}`,
      narSize: nar.length,
      ...(deriver === undefined ? {} : { deriver: `/nix/store/${drv(deriver)}` }),
    };
  });
  const dump: PublishContext["dump"] = async function* ({ path }, visitor) {
    const nar = nars.get(path) as Uint8Array;
    const reader = new NarReader(visitor);
    reader.write(nar);
    reader.end();
    for (let at = 0; at < nar.length; at += 300_007) yield nar.slice(at, at + 300_007);
  };
  return { closure, dump };
}

/** Publishes as a machine that has never seen the cache. */
async function publishReal(
  store: MemoryStore,
  paths: readonly RealPath[],
  more: Partial<PublishContext> = {},
) {
  using machine = party(store);
  const { closure, dump } = realPaths(paths);
  const context: PublishContext = {
    ...machine,
    upstreams: [],
    dump,
    key: KEY,
    compressor: new Compressor(3, 2),
    partBytes: 1 << 30,
    unitsAtOnce: 4,
    progress: silentProgress(),
    ...more,
  };
  const result = await publish(closure, { tool: "test", source: "paths", roots: {} }, context);
  return { result, warnings: machine.warnings };
}

async function textOf(part: Part | undefined, store: MemoryStore): Promise<string | undefined> {
  if (part === undefined) return undefined;
  const chunks: Uint8Array[] = [];
  for await (const chunk of readPackedFile(part, store)) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

/** What a fresh reader finds of a path. */
async function readBack(store: MemoryStore, name: string) {
  using machine = party(store);
  await refresh(machine);
  const { view } = machine.database;
  const line = view.line(storeHash(name));
  if (line === undefined) throw new Error(`${name} is not in the cache`);
  const entry = entryOf(line);
  const nar = Bun.zstdDecompressSync(
    await readNar({ parts: entry.parts, fileHash: entry.info.fileHash }, store),
  );
  const files: Record<string, string | undefined> = {};
  for (const [path, file] of Object.entries(entry.attached ?? {})) {
    expect(view.attached(path)).toEqual(file);
    files[path] = "text" in file ? file.text : await textOf(file.part, store);
  }
  return {
    line,
    entry,
    narSize: nar.length,
    files,
    listing: await textOf(view.listing(storeHash(name)), store),
  };
}

const listingOf = (size: number) => `{"version":1,"root":{"type":"regular","size":${size},"narOffset":96}}`;

const logsOf =
  (logs: Record<string, string>): NonNullable<PublishContext["buildLog"]> =>
  (derivation) => {
    const text = Object.entries(logs).find(([name]) => derivation === `/nix/store/${drv(name)}`)?.[1];
    return text === undefined ? undefined : bytesOf(text);
  };

describe("a listing", () => {
  test("of a small NAR lies behind it in its pack", async () => {
    const store = new MemoryStore();
    const { result } = await publishReal(store, [{ name: "a" }, { name: "b", size: 500 }]);
    const [a, b] = [await readBack(store, "a"), await readBack(store, "b")];
    expect([a.listing, b.listing]).toEqual([listingOf(300), listingOf(500)]);
    const [nar] = a.entry.parts as [Part];
    expect(a.entry.listing).toMatchObject({ blob: nar.blob, offset: nar.offset + nar.length });
    // One blob in all: nothing was asked of the registry for the listings.
    expect(b.entry.listing?.blob).toBe(nar.blob);
    expect(result.bytes.sent).toBe(nar.size);
  });

  test("of a large NAR lies at the end of its last blob", async () => {
    const store = new MemoryStore();
    const size = 3_000_000;
    await publishReal(store, [{ name: "big", size }], { partBytes: 1_000_000 });
    const { entry, listing, narSize } = await readBack(store, "big");
    expect(listing).toBe(listingOf(size));
    expect(narSize).toBe(size + 112);
    const last = entry.parts.at(-1) as Part;
    expect(entry.parts.length).toBeGreaterThan(2);
    expect(last.size).toBe(last.length + (entry.listing as Part).length);
    expect(entry.listing).toMatchObject({ blob: last.blob, offset: last.length });
    for (const part of entry.parts.slice(0, -1)) expect(part.length).toBe(part.size);
  });

  test("never makes a blob larger than the part size", async () => {
    const store = new MemoryStore();
    // The one frame of the NAR fills the part but for a few bytes.
    const size = 1_500_000;
    await publishReal(store, [{ name: "big", size }], { partBytes: 1_500_200 });
    const { entry, listing } = await readBack(store, "big");
    expect(listing).toBe(listingOf(size));
    for (const bytes of store.blobs.values()) expect(bytes.length).toBeLessThanOrEqual(1_500_200);
    expect(entry.parts).toHaveLength(1);
    expect(entry.listing?.blob).not.toBe(entry.parts[0]?.blob as never);
  });

  test("of paths with the same NAR is one", async () => {
    const store = new MemoryStore();
    await publishReal(store, [{ name: "a" }, { name: "twin", content: "a" }]);
    const [a, twin] = [await readBack(store, "a"), await readBack(store, "twin")];
    expect(twin.entry.listing).toEqual(a.entry.listing as Part);
  });
});

describe("a build log", () => {
  test("goes with the first path of its derivation, small or large", async () => {
    const store = new MemoryStore();
    const paths: RealPath[] = [
      { name: "a", deriver: "a" },
      { name: "a-dev", deriver: "a" },
      { name: "big", size: 2_000_000, deriver: "big" },
      { name: "none", deriver: "none" },
      { name: "source" },
    ];
    const read: string[] = [];
    const buildLog = logsOf({ a: "log of a\n", big: "log of big\n" });
    await publishReal(store, paths, {
      buildLog: (derivation) => {
        read.push(derivation);
        return buildLog(derivation);
      },
    });
    const found = await Promise.all(paths.map(({ name }) => readBack(store, name)));
    expect(found.map(({ files }) => files)).toEqual([
      { [`log/${drv("a")}`]: "log of a\n" },
      {},
      { [`log/${drv("big")}`]: "log of big\n" },
      {},
      {},
    ]);
    expect(read.sort()).toEqual(["a", "big", "none"].map((name) => `/nix/store/${drv(name)}`).sort());
    expect(found.map(({ listing }) => listing === undefined)).toEqual([false, false, false, false, false]);
    // A pack and a large NAR, whatever stands beside them.
    expect(found.flatMap(({ entry }) => [...entry.parts]).map(({ blob }) => blob).length).toBe(5);
    expect(new Set(found.flatMap(({ entry }) => entry.parts.map(({ blob }) => blob))).size).toBe(2);
  });

  test("of two derivations with the same NAR are both there", async () => {
    const store = new MemoryStore();
    await publishReal(
      store,
      [
        { name: "a", deriver: "a" },
        { name: "twin", content: "a", deriver: "twin" },
      ],
      { buildLog: logsOf({ a: "A", twin: "TWIN" }) },
    );
    expect((await readBack(store, "a")).files).toEqual({ [`log/${drv("a")}`]: "A" });
    expect((await readBack(store, "twin")).files).toEqual({ [`log/${drv("twin")}`]: "TWIN" });
  });

  test("that is empty is there: the build said nothing", async () => {
    const store = new MemoryStore();
    await publishReal(store, [{ name: "a", deriver: "a" }], { buildLog: logsOf({ a: "" }) });
    expect((await readBack(store, "a")).files).toEqual({ [`log/${drv("a")}`]: "" });
  });

  test("that cannot be read costs a warning", async () => {
    const store = new MemoryStore();
    const { result, warnings } = await publishReal(store, [{ name: "a", deriver: "a" }], {
      buildLog: () => {
        throw new NixcacheError("nix-store", "the build log x cannot be read: no");
      },
    });
    expect(result.paths.uploaded).toBe(1);
    expect(warnings).toEqual(["the build log x cannot be read: no"]);
    expect((await readBack(store, "a")).files).toEqual({});
  });
});

describe("blobs with files beside NARs", () => {
  const paths: RealPath[] = [
    { name: "a", deriver: "a" },
    { name: "big", size: 2_000_000, deriver: "big" },
  ];
  const more = { buildLog: logsOf({ a: "log of a", big: "log of big" }) };

  test("are the same when a run starts again, and nothing is sent", async () => {
    const store = new MemoryStore();
    await publishReal(store, paths, more);
    const blobs = [...store.blobs.keys()].sort();
    // As if it had been killed before the commit: the blobs are there, the manifests are not.
    const again = new MemoryStore();
    for (const [digest, bytes] of store.blobs) again.blobs.set(digest, bytes);
    const { result } = await publishReal(again, paths, more);
    expect(result.bytes.sent).toBe(0);
    expect([...store.blobs.keys()].sort()).toEqual(blobs);
  });

  test("that vanish are made again, files and all", async () => {
    const store = new MemoryStore();
    await publishReal(store, paths, more);
    const before = await readBack(store, "big");
    store.blobs.delete(before.entry.listing?.blob as never);
    const { warnings } = await publishReal(store, paths, { ...more, key: OTHER_KEY });
    expect(warnings.join()).toContain("gone from the cache; uploading 1 paths again");
    const after = await readBack(store, "big");
    expect(after.listing).toBe(before.listing as string);
    expect(after.files).toEqual({ [`log/${drv("big")}`]: "log of big" });
  });

  test("stay with an entry that is restated, and one without gets none", async () => {
    const store = new MemoryStore();
    await publishReal(store, paths, more);
    const before = await readBack(store, "a");
    await publishReal(store, paths, { key: OTHER_KEY });
    const after = await readBack(store, "a");
    expect(after.entry.info.sigs).toHaveLength(2);
    expect(after.entry).toMatchObject({ listing: before.entry.listing, attached: before.entry.attached });
  });
});

describe("realisations", () => {
  const id = (digit: string) => `sha256:${digit.repeat(64)}!out`;
  const realisation = (digit: string, more: Partial<Realisation> = {}): Realisation => ({
    id: id(digit),
    outPath: pathOf("a").slice("/nix/store/".length),
    signatures: [],
    dependentRealisations: {},
    ...more,
  });
  const of = (...realisations: Realisation[]) => ({
    realisations: new Map([[pathOf("a"), realisations]]),
  });

  test("go into the line, signed", async () => {
    const store = new MemoryStore();
    await publishReal(store, [{ name: "a" }], of(realisation("1")));
    const { files } = await readBack(store, "a");
    expect(Object.keys(files)).toEqual([`realisations/${id("1")}.doi`]);
    const { signatures, ...fields } = JSON.parse(Object.values(files)[0] as string);
    expect(fields).toEqual({ id: id("1"), outPath: realisation("1").outPath, dependentRealisations: {} });
    expect(signatures).toEqual([expect.stringMatching(/^test-1:/)]);
  });

  test("of another derivation that came to the same path join it; the same ones change nothing", async () => {
    const store = new MemoryStore();
    const paths = [{ name: "a", deriver: "a" }];
    await publishReal(store, paths, { ...of(realisation("1")), buildLog: logsOf({ a: "log" }) });
    const first = await readBack(store, "a");
    const same = await publishReal(store, paths, of(realisation("1")));
    expect(same.result.generation).toBeNull();
    await publishReal(store, paths, of(realisation("1"), realisation("2")));
    const { files, listing, line } = await readBack(store, "a");
    expect(Object.keys(files).sort()).toEqual(
      [...Object.keys(first.files), `realisations/${id("2")}.doi`].sort(),
    );
    expect(listing).toBe(first.listing as string);
    expect(line.added).toBeGreaterThan(first.line.added);
    expect((await publishReal(store, paths, of(realisation("2")))).result.generation).toBeNull();
  });

  test("gain the signature of another publisher", async () => {
    const store = new MemoryStore();
    await publishReal(store, [{ name: "a" }], of(realisation("1")));
    await publishReal(store, [{ name: "a" }], { ...of(realisation("1")), key: OTHER_KEY });
    const { files } = await readBack(store, "a");
    expect(JSON.parse(Object.values(files)[0] as string).signatures).toHaveLength(2);
  });

  test("are as many as an entry may have", async () => {
    const store = new MemoryStore();
    const many = Array.from({ length: 40 }, (_, i) => realisation("1", { id: `sha256:${i}!out` }));
    await publishReal(store, [{ name: "a" }], of(...many));
    expect(Object.keys((await readBack(store, "a")).files)).toHaveLength(32);
    expect((await publishReal(store, [{ name: "a" }], of(...many))).result.generation).toBeNull();
  });
});

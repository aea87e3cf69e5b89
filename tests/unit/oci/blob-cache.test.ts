/** The disk cache of blobs: what it keeps, what it finds wrong, and that it never costs more than it helps. */
import { afterAll, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import * as promises from "node:fs/promises";
import { appendFile, mkdir, open, readFile, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import {
  BlobCache,
  type BlobCacheOptions,
  type CacheableStore,
  type Download,
} from "../../../src/oci/blob-cache.ts";
import { cachedFileBytes } from "../../../src/oci/blob-cache-file.ts";
import { BlobCacheFolder } from "../../../src/oci/blob-cache-folder.ts";
import { type Digest, digestHex, digestOf } from "../../../src/oci/digest.ts";
import type { ByteRange } from "../../../src/oci/store.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { propertyParameters } from "../../support/seed.ts";

const KIB = 1024;
const root = mkdtempSync(join(tmpdir(), "nixcache-test-blob-cache-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let folders = 0;
let folder: string;
let now: number;
let warnings: string[];
let store: MemoryStore;

beforeEach(() => {
  folder = join(root, String(++folders));
  now = 1_000_000;
  warnings = [];
  store = new MemoryStore();
});

/** A clock that moves with every look at it, so that no two uses are at the same time. */
const host = { now: () => (now += 1000), random: Math.random, sleep: (ms: number) => Bun.sleep(ms) };

const openCache = (limit = 64 * 1024 * KIB, options: Partial<BlobCacheOptions> = {}) =>
  BlobCache.open({ directory: folder, limit, host, warn: (message) => warnings.push(message), ...options });

interface Blob {
  readonly digest: Digest;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

function blob(size: number, seed = 1): Blob {
  const bytes = new Uint8Array(size);
  for (let i = 0, x = seed; i < size; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    bytes[i] = x >>> 24;
  }
  const digest = digestOf(bytes);
  store.blobs.set(digest, bytes);
  return { digest, bytes };
}

async function read(from: CacheableStore, { digest, bytes }: Blob, range?: ByteRange): Promise<Uint8Array> {
  const stream = await from.readBlob(digest, { size: bytes.length, range });
  if (stream === undefined) throw new Error("absent");
  return new Response(stream).bytes();
}

/** Reads without the store, or throws. */
const offline: CacheableStore = {
  name: "offline",
  readBlob: async () => {
    throw new Error("the store was asked");
  },
};

const isKept = (cache: BlobCache, blob: Blob) =>
  read(cache.over(offline), blob).then(
    (bytes) => Buffer.compare(bytes, blob.bytes) === 0,
    () => false,
  );

function denied(path: string): Error {
  return Object.assign(new Error(`EACCES: permission denied, '${path}'`), { code: "EACCES" });
}

/** The downloads under way are over. */
async function settled(cache: BlobCache): Promise<void> {
  while (cache.status().filling > 0) await Bun.sleep(1);
}

const fileOf = ({ digest }: Blob) => join(folder, "blobs-v1", digestHex(digest));
const keptFiles = () => readdirSync(join(folder, "blobs-v1")).sort();
/** Files in the making of all processes. */
const drafts = () =>
  readdirSync(join(folder, "filling"), { recursive: true, withFileTypes: true }).filter(
    (entry) => entry.isFile() && entry.name !== "lock",
  );
/** A download has begun. */
async function begun(): Promise<void> {
  while (drafts().length === 0) await Bun.sleep(1);
}

const bytesOnDisk = () =>
  [
    ...keptFiles().map((name) => join(folder, "blobs-v1", name)),
    ...drafts().map((f) => join(f.parentPath, f.name)),
  ]
    .map((file) => statSync(file).size)
    .reduce((a, b) => a + b, 0);

/** A download whose pieces are let through one by one. */
function gated(bytes: Uint8Array) {
  const gates: PromiseWithResolvers<number>[] = [];
  let next = 0;
  let passed = 0;
  let asked = 0;
  const gate = (index: number): PromiseWithResolvers<number> => {
    const opened = gates[index] ?? Promise.withResolvers<number>();
    opened.promise.catch(() => {});
    gates[index] = opened;
    return opened;
  };
  const download: Download = async function* (_store, _digest, _size, signal) {
    asked++;
    let done = 0;
    while (done < bytes.length) {
      // An abort that came before is no event any more.
      signal.throwIfAborted();
      const aborted = new Promise<never>((_, reject) =>
        signal.addEventListener("abort", () => reject(signal.reason), { once: true }),
      );
      const upTo = await Promise.race([gate(passed++).promise, aborted]);
      yield bytes.subarray(done, upTo);
      done = upTo;
    }
  };
  return {
    download,
    downloads: () => asked,
    /** Lets the bytes before this one through. */
    upTo: (position: number) => gate(next++).resolve(position),
    fail: (error: Error) => gate(next++).reject(error),
  };
}

describe("what is kept", () => {
  test("a second read, whole or of any range, asks nobody", async () => {
    await using cache = await openCache();
    const one = blob(300 * KIB + 17);
    expect(await read(cache.over(store), one)).toEqual(one.bytes);
    await settled(cache);
    const ranges: ByteRange[] = [
      { offset: 0, length: 1 },
      { offset: 64 * KIB - 1, length: 2 },
      { offset: 64 * KIB, length: 64 * KIB },
      { offset: 1, length: 300 * KIB },
      { offset: 300 * KIB + 16, length: 1 },
    ];
    for (const range of ranges) {
      const expected = one.bytes.subarray(range.offset, range.offset + range.length);
      expect(await read(cache.over(offline), one, range)).toEqual(expected);
    }
    expect(await isKept(cache, one)).toBe(true);
    expect(store.calls).toEqual([`readBlob ${one.digest}`]);
    expect(cache.status()).toEqual({
      directory: folder,
      bytes: cachedFileBytes(one.bytes.length),
      limit: 64 * 1024 * KIB,
      blobs: 1,
      hits: 6,
      misses: 1,
      filling: 0,
    });
  });

  test("a slice of a pack brings the pack", async () => {
    await using cache = await openCache();
    const pack = blob(1000 * KIB);
    expect(await read(cache.over(store), pack, { offset: 5, length: 10 })).toEqual(
      pack.bytes.subarray(5, 15),
    );
    await settled(cache);
    expect(await isKept(cache, pack)).toBe(true);
  });

  test("it is there for the next process, and files of others are left alone", async () => {
    const one = blob(100 * KIB);
    {
      await using cache = await openCache();
      await read(cache.over(store), one);
      await settled(cache);
      await writeFile(join(folder, "notes.txt"), "mine");
      await writeFile(join(folder, "blobs-v1", "README"), "mine");
    }
    await using cache = await openCache();
    expect(cache.status()).toMatchObject({ blobs: 1, bytes: cachedFileBytes(100 * KIB) });
    expect(await isKept(cache, one)).toBe(true);
    expect(await readFile(join(folder, "notes.txt"), "utf8")).toBe("mine");
    expect(keptFiles()).toContain("README");
  });

  test("files and folders are private", async () => {
    await using cache = await openCache();
    const one = blob(10);
    await read(cache.over(store), one);
    await settled(cache);
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    expect(statSync(fileOf(one)).mode & 0o777).toBe(0o600);
  });

  test("without the blob's size, or with a range outside of it, the cache is passed by", async () => {
    await using cache = await openCache();
    const one = blob(10);
    expect(await (await cache.over(store).readBlob(one.digest))?.bytes()).toEqual(one.bytes);
    await read(cache.over(store), one, { offset: 5, length: 6 }).catch(() => {});
    await read(cache.over(store), one, { offset: 5, length: 0 });
    expect(keptFiles()).toEqual([]);
  });
});

describe("the bound", () => {
  test("what was used longest ago goes first, and a hit is a use", async () => {
    const size = 50 * KIB;
    // Room for ten, of which a look removes two at once when the room is less than that.
    await using cache = await openCache(10 * cachedFileBytes(size));
    const blobs = Array.from({ length: 10 }, (_, i) => blob(size, i + 1));
    for (const each of blobs) {
      await read(cache.over(store), each);
      await settled(cache);
    }
    expect(keptFiles().length).toBe(10);
    await read(cache.over(offline), blobs[0] as Blob, { offset: 3, length: 1 });
    const [eleventh, twelfth] = [blob(size, 11), blob(size, 12)];
    for (const each of [eleventh, twelfth]) {
      await read(cache.over(store), each);
      await settled(cache);
    }
    const kept = [blobs[0], ...blobs.slice(3), eleventh, twelfth] as Blob[];
    expect(keptFiles()).toEqual(kept.map(({ digest }) => digestHex(digest)).sort());
  });

  test("a blob larger than the cache passes by and removes nothing", async () => {
    await using cache = await openCache(100 * KIB);
    const [small, large] = [blob(50 * KIB), blob(100 * KIB, 2)];
    await read(cache.over(store), small);
    await settled(cache);
    expect(await read(cache.over(store), large)).toEqual(large.bytes);
    await settled(cache);
    expect(keptFiles()).toEqual([digestHex(small.digest)]);
    expect(store.calls.length).toBe(2);
  });

  test("what is being filled counts in full, and what does not fit beside it passes by", async () => {
    const one = blob(60 * KIB);
    const gate = gated(one.bytes);
    const download: Download = (from, digest, size, signal) =>
      digest === one.digest ? gate.download(from, digest, size, signal) : plain(from, digest);
    await using cache = await openCache(100 * KIB, { download });
    const reading = read(cache.over(store), one);
    const two = blob(60 * KIB, 2);
    expect(await read(cache.over(store), two)).toEqual(two.bytes);
    gate.upTo(60 * KIB);
    expect(await reading).toEqual(one.bytes);
    await settled(cache);
    expect(keptFiles()).toEqual([digestHex(one.digest)]);
  });

  test("what another process has in the making counts in full too", async () => {
    const one = blob(60 * KIB);
    const gate = gated(one.bytes);
    await using first = await openCache(100 * KIB, { download: gate.download });
    const reading = read(first.over(store), one);
    gate.upTo(10);
    await begun();
    await using second = await openCache(100 * KIB);
    const two = blob(60 * KIB, 2);
    expect(await read(second.over(store), two)).toEqual(two.bytes);
    await settled(second);
    expect(keptFiles()).toEqual([]);
    gate.upTo(60 * KIB);
    await reading;
  });

  test("a second process counts what the first one has, and exceeds the limit by a sixteenth at most", async () => {
    const size = 10 * KIB;
    const limit = 160 * KIB;
    await using first = await openCache(limit);
    await using second = await openCache(limit);
    for (let i = 1; i <= 40; i++) {
      const cache = i % 2 === 0 ? first : second;
      const each = blob(size, i);
      await read(cache.over(store), each);
      await settled(cache);
      expect(await isKept(cache, each)).toBe(true);
      expect(bytesOnDisk()).toBeLessThanOrEqual(limit + limit / 16 + cachedFileBytes(size));
    }
    expect(keptFiles().length).toBeGreaterThan(10);
  });
});

async function* plain(from: CacheableStore, digest: Digest): AsyncGenerator<Uint8Array> {
  const stream = await from.readBlob(digest);
  if (stream === undefined) throw new Error("absent");
  yield* stream;
}

describe("downloads that are shared", () => {
  test("many readers of one blob cost one download and follow it, each from its own place", async () => {
    const one = blob(1000 * KIB);
    const gate = gated(one.bytes);
    await using cache = await openCache(undefined, { download: gate.download });
    const from = cache.over(store);
    const ranges = Array.from({ length: 40 }, (_, i) => ({ offset: i * 25 * KIB, length: 25 * KIB - i }));
    const readers = ranges.map((range) => read(from, one, range));
    let arrived = 0;
    for (const reader of readers) void reader.then(() => arrived++);
    gate.upTo(500 * KIB);
    await Promise.all(readers.slice(0, 20));
    expect(arrived).toBe(20);
    // One that comes late reads from disk what is there.
    expect(await read(from, one, { offset: 0, length: 500 * KIB })).toEqual(one.bytes.subarray(0, 500 * KIB));
    gate.upTo(1000 * KIB);
    expect(await Promise.all(readers)).toEqual(
      ranges.map(({ offset, length }) => one.bytes.subarray(offset, offset + length)),
    );
    expect(gate.downloads()).toBe(1);
    expect(store.calls).toEqual([]);
    expect(cache.status()).toMatchObject({ misses: 1, hits: 40 });
  });

  test("a reader that hangs up, the first one too, does not end it for the others or for the cache", async () => {
    const one = blob(100 * KIB);
    const gate = gated(one.bytes);
    await using cache = await openCache(undefined, { download: gate.download });
    const from = cache.over(store);
    const abort = new AbortController();
    const aborted = await from.readBlob(one.digest, { size: one.bytes.length, signal: abort.signal });
    const cancelled = await from.readBlob(one.digest, { size: one.bytes.length });
    const reading = new Response(aborted).bytes();
    abort.abort();
    expect(await reading.catch((error) => error.code)).toBe("interrupted");
    const pulling = cancelled?.getReader();
    const pulled = pulling?.read();
    await pulling?.cancel();
    expect((await pulled)?.done).toBe(true);
    gate.upTo(100 * KIB);
    await settled(cache);
    expect(await isKept(cache, one)).toBe(true);
  });

  test("a reader far ahead of the download gets its bytes from the store, and the download goes on", async () => {
    const one = blob(65 * 1024 * KIB);
    const gate = gated(one.bytes);
    await using cache = await openCache(128 * 1024 * KIB, { download: gate.download });
    const range = { offset: one.bytes.length - 10, length: 10 };
    expect(await read(cache.over(store), one, range)).toEqual(one.bytes.subarray(-10));
    expect(store.calls).toEqual([`readBlob ${one.digest}`]);
    gate.upTo(one.bytes.length);
    await settled(cache);
    expect(await isKept(cache, one)).toBe(true);
  });

  test("the last byte is there only once all are found right", async () => {
    const one = blob(100 * KIB);
    const wrong = one.bytes.slice();
    wrong[50] = (wrong[50] ?? 0) ^ 1;
    store.blobs.set(one.digest, wrong);
    await using cache = await openCache();
    expect(await read(cache.over(store), one).catch((error) => error.message)).toMatch(
      /^blob sha256:\w+ of memory: got bytes with the SHA-256 \w+$/,
    );
    await settled(cache);
    expect([keptFiles(), drafts(), warnings]).toEqual([[], [], []]);
    store.blobs.set(one.digest, one.bytes);
    expect(await read(cache.over(store), one)).toEqual(one.bytes);
  });

  test.each([
    ["short", -1],
    ["long", 1],
  ])("a blob that is too %s is an error and not kept", async (_, more) => {
    const one = blob(100 * KIB);
    store.blobs.set(one.digest, Buffer.alloc(one.bytes.length + more));
    await using cache = await openCache();
    expect(await read(cache.over(store), one).catch((error) => error.code)).toBe("corrupt");
    await settled(cache);
    expect([keptFiles(), drafts()]).toEqual([[], []]);
  });

  test("a store that fails is the reader's error, and the next reader asks again", async () => {
    const one = blob(100 * KIB);
    const gate = gated(one.bytes);
    await using cache = await openCache(undefined, { download: gate.download });
    const reading = read(cache.over(store), one);
    gate.upTo(10);
    gate.fail(new Error("the line broke"));
    expect(await reading.catch((error) => error.message)).toBe("the line broke");
    await settled(cache);
    expect([keptFiles(), drafts(), warnings]).toEqual([[], [], []]);
    const again = read(cache.over(store), one);
    gate.upTo(one.bytes.length);
    expect(await again).toEqual(one.bytes);
  });

  test("what one store fails to give comes from the reader's own", async () => {
    const one = blob(100 * KIB);
    const gate = gated(one.bytes);
    await using cache = await openCache(undefined, { download: gate.download });
    const other = new MemoryStore();
    other.blobs.set(one.digest, one.bytes);
    const first = read(cache.over(store), one).catch((error) => error.message);
    await begun();
    const second = read(cache.over(other), one);
    gate.upTo(70 * KIB);
    gate.fail(new Error("gone"));
    expect(await first).toBe("gone");
    expect(await second).toEqual(one.bytes);
    expect(other.calls.length).toBe(1);
  });

  test("closing ends the downloads and leaves nothing half made", async () => {
    const one = blob(100 * KIB);
    const gate = gated(one.bytes);
    const cache = await openCache(undefined, { download: gate.download });
    const reading = read(cache.over(store), one).catch((error) => error.code);
    gate.upTo(10);
    await begun();
    await cache[Symbol.asyncDispose]();
    expect(cache.status().filling).toBe(0);
    expect(await reading).toBe("interrupted");
    expect([keptFiles(), readdirSync(join(folder, "filling"))]).toEqual([[], []]);
  });
});

describe("damage on disk", () => {
  const damages: [string, (file: string, size: number) => Promise<unknown>][] = [
    ["cut short", (file) => truncate(file, 100)],
    ["emptied", (file) => truncate(file, 0)],
    ["longer", (file) => appendFile(file, "x")],
    ["with a flipped bit at the start", (file) => flip(file, 0)],
    ["with a flipped bit in the middle", (file, size) => flip(file, size >> 1)],
    ["with a flipped bit at the end", (file, size) => flip(file, size - 1)],
    ["with a flipped bit in a checksum", (file, size) => flip(file, size + 5)],
    [
      "with a hole",
      (file, size) => truncate(file, size - 10).then(() => truncate(file, cachedFileBytes(size))),
    ],
  ];

  async function flip(file: string, at: number): Promise<void> {
    const handle = await open(file, "r+");
    const byte = Buffer.alloc(1);
    await handle.read(byte, 0, 1, at);
    await handle.write(Buffer.of((byte[0] ?? 0) ^ 4), 0, 1, at);
    await handle.close();
  }

  test.each(damages)("a file %s costs a download, and no reader sees it", async (_, damage) => {
    const one = blob(500 * KIB);
    await using cache = await openCache();
    await read(cache.over(store), one);
    await settled(cache);
    await damage(fileOf(one), one.bytes.length);
    expect(await read(cache.over(store), one)).toEqual(one.bytes);
    await settled(cache);
    expect(await read(cache.over(store), one)).toEqual(one.bytes);
    await settled(cache);
    expect(await isKept(cache, one)).toBe(true);
    expect(cache.status()).toMatchObject({ blobs: 1, bytes: cachedFileBytes(one.bytes.length) });
    expect(bytesOnDisk()).toBe(cachedFileBytes(one.bytes.length));
  });

  test("one that is asked for only where it is whole is not noticed", async () => {
    const one = blob(500 * KIB);
    await using cache = await openCache();
    await read(cache.over(store), one);
    await settled(cache);
    await flip(fileOf(one), 400 * KIB);
    const range = { offset: 10 * KIB, length: 100 * KIB };
    expect(await read(cache.over(offline), one, range)).toEqual(one.bytes.subarray(10 * KIB, 110 * KIB));
  });

  test("a folder in the place of a file is passed by", async () => {
    const one = blob(10);
    await mkdir(fileOf(one), { recursive: true });
    await using cache = await openCache();
    expect(await read(cache.over(store), one)).toEqual(one.bytes);
    await settled(cache);
    expect(drafts()).toEqual([]);
  });
});

describe("a disk that fails", () => {
  test("a cache that cannot be made is a warning, once, and readers are served", async () => {
    await writeFile(folder, "a file in the place of the folder");
    const cache = await openCache();
    const [one, two] = [blob(100 * KIB), blob(100 * KIB, 2)];
    for (const each of [one, two, one]) expect(await read(cache.over(store), each)).toEqual(each.bytes);
    expect(warnings).toEqual([
      expect.stringMatching(/^NARs are not kept on disk for now: cannot use the folder .* is no folder$/),
    ]);
    rmSync(folder);
    expect(await read(cache.over(store), one)).toEqual(one.bytes);
    await settled(cache);
    expect(await isKept(cache, one)).toBe(true);
    await cache[Symbol.asyncDispose]();
  });

  test.each(["blobs-v1", "filling", "."])(
    "%s removed under a running server: served and warned once, and kept again with the next",
    async (removed) => {
      await using cache = await openCache();
      const [one, two] = [blob(100 * KIB), blob(100 * KIB, 2)];
      rmSync(join(folder, removed), { recursive: true });
      expect(await read(cache.over(store), one)).toEqual(one.bytes);
      await settled(cache);
      expect(warnings.length).toBe(removed === "filling" ? 0 : 1);
      expect(await read(cache.over(store), two)).toEqual(two.bytes);
      await settled(cache);
      expect(await isKept(cache, two)).toBe(true);
      expect(drafts()).toEqual([]);
    },
  );

  test("a folder that cannot be listed is no empty one: nothing more is kept in it", async () => {
    const limit = 5 * cachedFileBytes(50 * KIB);
    const fill = await openCache(limit);
    for (let seed = 1; seed <= 5; seed++) {
      await read(fill.over(store), blob(50 * KIB, seed));
      await settled(fill);
    }
    await fill[Symbol.asyncDispose]();
    const before = keptFiles();
    expect(before).toHaveLength(5);
    {
      const { readdir } = promises;
      using _ = spyOn(promises, "readdir").mockImplementation((async (path: string) => {
        if (path.endsWith("blobs-v1")) throw denied(path);
        return readdir(path);
      }) as never);
      await using cache = await openCache(limit);
      const [one, two] = [blob(50 * KIB, 6), blob(50 * KIB, 7)];
      for (const each of [one, two]) expect(await read(cache.over(store), each)).toEqual(each.bytes);
      await settled(cache);
      expect(warnings).toEqual([expect.stringMatching(/not kept on disk for now: read .*blobs-v1: EACCES/)]);
    }
    expect(keptFiles()).toEqual(before);
  });

  test("files that cannot be removed still count", async () => {
    const limit = 5 * cachedFileBytes(50 * KIB);
    await using cache = await openCache(limit);
    const { unlink } = promises;
    using _ = spyOn(promises, "unlink").mockImplementation(async (path) => {
      if (String(path).includes("blobs-v1")) throw denied(String(path));
      return unlink(path);
    });
    for (let seed = 1; seed <= 9; seed++) {
      const each = blob(50 * KIB, seed);
      expect(await read(cache.over(store), each)).toEqual(each.bytes);
      await settled(cache);
    }
    expect(bytesOnDisk()).toBeLessThanOrEqual(limit);
    expect(cache.status().bytes).toBe(bytesOnDisk());
  });

  test("a file that cannot be made: its readers get everything from the store", async () => {
    const one = blob(100 * KIB);
    const gate = gated(one.bytes);
    const download: Download = (...args) => {
      rmSync(join(folder, "filling"), { recursive: true });
      return gate.download(...args);
    };
    await using cache = await openCache(undefined, { download });
    expect(await read(cache.over(store), one)).toEqual(one.bytes);
    expect(warnings).toEqual([expect.stringContaining("write ")]);
  });
});

describe("several processes on one folder", () => {
  test("what is in the making elsewhere is left alone, what nobody holds is removed", async () => {
    const one = blob(100 * KIB);
    const gate = gated(one.bytes);
    await using first = await openCache(undefined, { download: gate.download });
    const reading = read(first.over(store), one);
    gate.upTo(10);
    await begun();
    const abandoned = join(folder, "filling", crypto.randomUUID());
    await mkdir(abandoned);
    await writeFile(join(abandoned, crypto.randomUUID()), "half a blob");
    await using second = await openCache();
    expect(readdirSync(join(folder, "filling")).length).toBe(2);
    expect(drafts().length).toBe(1);
    expect(await read(second.over(store), one)).toEqual(one.bytes);
    gate.upTo(one.bytes.length);
    expect(await reading).toEqual(one.bytes);
    await Promise.all([settled(first), settled(second)]);
    expect(keptFiles()).toEqual([digestHex(one.digest)]);
  });

  test("many that open at once each have a folder of their own", async () => {
    const opened = Array.from({ length: 12 }, () => new BlobCacheFolder(folder, 1000 * KIB, host));
    await Promise.all(opened.map((each) => each.open()));
    const paths = await Promise.all(opened.map((each) => each.reserve(10)));
    expect(new Set(paths.map((path) => path && join(path, ".."))).size).toBe(12);
    for (const path of paths) await writeFile(path as string, "");
    expect(drafts().length).toBe(12);
    await Promise.all(opened.map((each) => each.close()));
    expect(readdirSync(join(folder, "filling"))).toEqual([]);
  });
});

test("whoever reads what, whatever is removed or damaged meanwhile: right bytes within the bound", async () => {
  const size = fc.integer({ min: 1, max: 200 * KIB });
  const step = fc.record({
    blob: fc.nat(7),
    cache: fc.nat(1),
    from: fc.double({ min: 0, max: 0.99, noNaN: true }),
    share: fc.double({ min: 0, max: 1, noNaN: true }),
    hangUp: fc.boolean(),
    damage: fc.option(fc.nat(200 * KIB), { freq: 8 }),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(size, { minLength: 8, maxLength: 8 }),
      fc.integer({ min: 50 * KIB, max: 600 * KIB }),
      fc.array(step, { minLength: 1, maxLength: 60 }),
      async (sizes, limit, steps) => {
        folder = join(root, String(++folders));
        store = new MemoryStore();
        store.before = () => Bun.sleep(0);
        const blobs = sizes.map((size, i) => blob(size, i + 1));
        await using one = await openCache(limit);
        await using two = await openCache(limit);
        const most = limit + limit / 16 + 200 * KIB;
        await Promise.all(
          steps.map(async (step, i) => {
            // A few at a time, in an order of their own.
            for (let wait = i % 7; wait > 0; wait--) await Bun.sleep(0);
            const each = blobs[step.blob] as Blob;
            if (step.damage !== null) {
              await truncate(fileOf(each), step.damage).catch(() => {});
              return;
            }
            const offset = Math.floor(each.bytes.length * step.from);
            const length = Math.max(1, Math.floor((each.bytes.length - offset) * step.share));
            const from = (step.cache === 0 ? one : two).over(store);
            const stream = await from.readBlob(each.digest, {
              size: each.bytes.length,
              range: { offset, length },
            });
            if (step.hangUp) {
              await stream?.cancel();
              return;
            }
            const got = await new Response(stream).bytes();
            if (Buffer.compare(got, each.bytes.subarray(offset, offset + length)) !== 0) {
              throw new Error(`step ${i}: got other bytes`);
            }
            expect(bytesOnDisk()).toBeLessThanOrEqual(most);
          }),
        );
        await Promise.all([settled(one), settled(two)]);
        expect(drafts()).toEqual([]);
        expect(warnings).toEqual([]);
      },
    ),
    { ...propertyParameters(), numRuns: 40 },
  );
}, 60_000);

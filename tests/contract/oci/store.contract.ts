/**
 * What every store promises, whatever is behind it. Run on a folder, on Debian's docker-registry, and wherever
 * else a store is to be trusted: `describeStore("name", open)`.
 */
import { describe, expect, test } from "bun:test";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Digest, digestOf } from "../../../src/oci/digest.ts";
import { decodeManifest, EMPTY_CONFIG_BYTES, MEDIA_TYPE_MANIFEST } from "../../../src/oci/manifest.ts";
import type { Store } from "../../../src/oci/store.ts";
import { bytesOf, manifestOf, randomBytes, readAll, writeBlob, writeTag } from "./helpers.ts";

/** Makes an empty cache and hands over how to open it: each call gives a store of its own. */
export type WithStore = (body: (open: () => Store) => Promise<void>) => Promise<void>;

const MIB = 1024 * 1024;

export function describeStore(name: string, withStore: WithStore): void {
  /** A test with one store of an empty cache. */
  const storeTest = (title: string, body: (store: Store, open: () => Store) => Promise<void>) =>
    test(title, () => withStore((open) => body(open(), open)));

  describe(`${name}: a cache that does not exist yet`, () => {
    storeTest("has no tags, no manifests and no blobs", async (store) => {
      expect(await store.listTags()).toEqual([]);
      expect(await store.readManifest("t")).toBeUndefined();
      expect(await store.statManifest("t")).toBeUndefined();
      expect(await store.statManifest(digestOf("x"))).toBeUndefined();
      expect(await store.statBlob(digestOf("x"))).toBeUndefined();
      expect(await store.readBlob(digestOf("x"))).toBeUndefined();
      expect(await store.readBlob(digestOf("x"), { range: { offset: 1, length: 2 } })).toBeUndefined();
      expect(await store.deleteManifest(digestOf("x"))).toBe(false);
    });
  });

  describe(`${name}: whether it can be written to`, () => {
    storeTest("is found out again and again, and nothing is left behind", async (store, open) => {
      for (let times = 0; times < 2; times++) await store.checkWrite?.();
      expect(await open().listTags()).toEqual([]);
      await writeTag(store, "t", "content");
      await store.checkWrite?.();
      expect(await open().listTags()).toEqual(["t"]);
    });
  });

  describe(`${name}: blobs`, () => {
    storeTest("come back as they were, from memory, whatever their size", async (store) => {
      for (const size of [0, 1, 1000, 3 * MIB + 17]) {
        const bytes = randomBytes(size);
        const digest = await writeBlob(store, bytes);
        expect(await store.statBlob(digest)).toBe(size);
        expect(await bytesOf(await store.readBlob(digest))).toEqual(bytes);
      }
    });

    storeTest("come back as they were, from a file, which stays the caller's", async (store) => {
      const folder = await mkdtemp(join(tmpdir(), "nixcache-test-"));
      try {
        for (const size of [0, 5, 5 * MIB + 3]) {
          const bytes = randomBytes(size);
          const digest = digestOf(bytes);
          const file = join(folder, String(size));
          await Bun.write(file, bytes);
          await store.writeBlob({ digest, size, content: { file } });
          // The caller removes it, or changes its mind and does something else with the name.
          await rm(file);
          expect(await bytesOf(await store.readBlob(digest))).toEqual(bytes);
        }
      } finally {
        await rm(folder, { recursive: true });
      }
    });

    storeTest("come back from somebody else's file, which stays as it is and may change", async (store) => {
      const folder = await mkdtemp(join(tmpdir(), "nixcache-test-"));
      try {
        for (const size of [5, 5 * MIB + 3]) {
          const bytes = randomBytes(size);
          const digest = digestOf(bytes);
          const content = { file: join(folder, String(size)), foreign: true };
          await Bun.write(content.file, bytes, { mode: 0o444 });
          const before = await stat(content.file);
          await store.writeBlob({ digest, size, content });
          expect(await stat(content.file)).toMatchObject({ nlink: 1, mode: before.mode, ino: before.ino });
          await Bun.write(content.file, randomBytes(size));
          expect(await bytesOf(await store.readBlob(digest))).toEqual(bytes);
          // Other bytes than its digest's are never stored.
          const other = { digest: digestOf(`other ${size}`), size, content };
          await expect(store.writeBlob(other)).rejects.toMatchObject({ code: "corrupt" });
          expect(await store.statBlob(other.digest)).toBeUndefined();
        }
      } finally {
        await rm(folder, { recursive: true });
      }
    });

    storeTest("may be written again, and by many at once", async (store, open) => {
      const bytes = randomBytes(MIB);
      await Promise.all(Array.from({ length: 12 }, () => writeBlob(open(), bytes)));
      const digest = await writeBlob(store, bytes);
      expect(await bytesOf(await store.readBlob(digest))).toEqual(bytes);
    });

    storeTest("are read in ranges", async (store) => {
      const bytes = randomBytes(MIB + 11);
      const digest = await writeBlob(store, bytes);
      const ranges: [number, number][] = [
        [0, 1],
        [0, bytes.length],
        [1, 10],
        [MIB, 11],
        [bytes.length - 1, 1],
        [500_000, 300_000],
        [7, 0],
      ];
      for (const [offset, length] of ranges) {
        const stream = await store.readBlob(digest, { range: { offset, length } });
        expect(await bytesOf(stream)).toEqual(bytes.slice(offset, offset + length));
      }
    });

    storeTest("have nothing beyond their end: such a range is an error", async (store) => {
      const digest = await writeBlob(store, randomBytes(1000));
      for (const range of [
        { offset: 990, length: 11 },
        { offset: 1000, length: 1 },
        { offset: 5000, length: 5 },
      ]) {
        const read = async () => bytesOf(await store.readBlob(digest, { range }));
        await expect(read()).rejects.toMatchObject({ code: "corrupt" });
      }
      const nonsense = { offset: -1, length: 5 };
      await expect(store.readBlob(digest, { range: nonsense })).rejects.toMatchObject({ code: "internal" });
    });

    storeTest("may be left unread half-way, many times", async (store) => {
      const bytes = randomBytes(2 * MIB);
      const digest = await writeBlob(store, bytes);
      for (let i = 0; i < 50; i++) {
        const reader = (await store.readBlob(digest))?.getReader();
        expect((await reader?.read())?.value?.length).toBeGreaterThan(0);
        await reader?.cancel();
      }
      expect(await bytesOf(await store.readBlob(digest))).toEqual(bytes);
    });

    storeTest("are refused when the source is not what it says", async (store) => {
      const digest = digestOf("something else");
      const content = randomBytes(100);
      await expect(store.writeBlob({ digest, size: 101, content })).rejects.toMatchObject({
        code: "corrupt",
      });
      await expect(store.writeBlob({ digest, size: 100, content })).rejects.toMatchObject({
        code: "corrupt",
      });
      expect(await store.statBlob(digest)).toBeUndefined();
      const file = { file: "/nonexistent/file" };
      await expect(store.writeBlob({ digest, size: 1, content: file })).rejects.toMatchObject({
        code: "filesystem",
      });
    });

    storeTest("stop when the caller gives up", async (store) => {
      const digest = await writeBlob(store, randomBytes(10));
      const signal = AbortSignal.abort();
      for (const call of [
        () => store.readBlob(digest, { signal }),
        () => store.statBlob(digest, { signal }),
        () => store.listTags({ signal }),
        () => store.readManifest("t", { signal }),
        () => store.writeBlob({ digest, size: 10, content: randomBytes(10) }, { signal }),
      ]) {
        await expect(call()).rejects.toMatchObject({ code: "interrupted" });
      }
    });
  });

  describe(`${name}: manifests and tags`, () => {
    storeTest("come back byte by byte, under the tag and under the digest", async (store) => {
      const digest = await writeTag(store, "t", "content");
      const byTag = await readAll(store, "t");
      expect(byTag).toMatchObject({ digest, mediaType: MEDIA_TYPE_MANIFEST });
      expect(digestOf(byTag.bytes)).toBe(digest);
      expect(decodeManifest(byTag.bytes, "t").artifactType).toBe("application/vnd.nixcache.segment.v1");
      expect(await readAll(store, digest)).toEqual(byTag);
      expect(await store.statManifest("t")).toBe(digest);
      expect(await store.statManifest(digest)).toBe(digest);
      expect(await store.listTags()).toEqual(["t"]);
    });

    storeTest("are unchanged while the tag is on the same digest", async (store) => {
      const first = await writeTag(store, "t", "first");
      expect(await store.readManifest("t", { ifNot: first })).toBe("unchanged");
      expect(await store.readManifest("t", { ifNot: digestOf("other") })).toMatchObject({ digest: first });
      expect(await store.readManifest("absent", { ifNot: first })).toBeUndefined();
      const second = await writeTag(store, "t", "second");
      expect(await store.readManifest("t", { ifNot: first })).toMatchObject({ digest: second });
      expect(await store.listTags()).toEqual(["t"]);
    });

    storeTest("are refused while a blob is missing, and the store names it", async (store) => {
      // As no other repository has it: zot takes over what it is asked for.
      const { bytes, layer } = manifestOf(`content ${crypto.randomUUID()}`);
      const config = new TextEncoder().encode("{}");
      await writeBlob(store, config);
      const refused = await store.writeManifest("t", MEDIA_TYPE_MANIFEST, bytes);
      expect(refused).toMatchObject({ blobsMissing: true, digests: [digestOf(layer)] });
      expect(await store.listTags()).toEqual([]);
      expect(await store.statManifest("t")).toBeUndefined();

      await writeBlob(store, layer);
      expect(await store.writeManifest("t", MEDIA_TYPE_MANIFEST, bytes)).toBe(digestOf(bytes));
      expect(await store.listTags()).toEqual(["t"]);
    });

    storeTest("have the same digest under a second tag, and deleting it removes both", async (store) => {
      const kept = await writeTag(store, "kept", "another");
      const digest = await writeTag(store, "seg-1", "content");
      const { bytes, mediaType } = await readAll(store, "seg-1");
      expect(await store.writeManifest("dead-1", mediaType, bytes)).toBe(digest);
      expect((await store.listTags()).sort()).toEqual(["dead-1", "kept", "seg-1"]);

      expect(await store.deleteManifest(digest)).toBe(true);
      expect(await store.listTags()).toEqual(["kept"]);
      for (const gone of ["seg-1", "dead-1", digest]) expect(await store.statManifest(gone)).toBeUndefined();
      expect(await store.readManifest("dead-1")).toBeUndefined();
      expect(await store.deleteManifest(digest)).toBe(false);
      expect(await store.statManifest("kept")).toBe(kept);
      // Putting it back is a new publish.
      expect(await writeTag(store, "seg-1", "content")).toBe(digest);
      expect(await store.statManifest("seg-1")).toBe(digest);
    });

    storeTest("may be put under their own digest", async (store) => {
      const { bytes, layer } = manifestOf("content");
      await writeBlob(store, new TextEncoder().encode("{}"));
      await writeBlob(store, layer);
      const digest = digestOf(bytes);
      expect(await store.writeManifest(digest, MEDIA_TYPE_MANIFEST, bytes)).toBe(digest);
      expect(await store.statManifest(digest)).toBe(digest);
      expect(await store.listTags()).toEqual([]);
    });

    storeTest("have names that cannot leave their place", async (store) => {
      for (const name of ["", "../x", "a/b", "a?b", "a b", "x".repeat(129), "sha256:12"]) {
        await expect(store.readManifest(name)).rejects.toMatchObject({ code: "internal" });
        await expect(store.statManifest(name)).rejects.toMatchObject({ code: "internal" });
      }
    });

    storeTest("are listed all, also when there are more than a page holds", async (store) => {
      const count = 1100;
      await writeTag(store, "tag-0", "content");
      const { bytes, mediaType } = await readAll(store, "tag-0");
      const tags = Array.from({ length: count }, (_, i) => `tag-${i}`);
      for (let i = 0; i < count; i += 50) {
        await Promise.all(tags.slice(i, i + 50).map((tag) => store.writeManifest(tag, mediaType, bytes)));
      }
      expect((await store.listTags()).sort()).toEqual(tags.sort());
    });

    storeTest("survive many writers at once: none is lost", async (_, open) => {
      const tags = Array.from({ length: 30 }, (_, i) => `seg-${i}`);
      await writeBlob(open(), EMPTY_CONFIG_BYTES);
      const digests = await Promise.all(tags.map((tag) => writeTag(open(), tag, `content of ${tag}`)));
      const reader = open();
      expect((await reader.listTags()).sort()).toEqual([...tags].sort());
      const found: (Digest | undefined)[] = await Promise.all(tags.map((tag) => reader.statManifest(tag)));
      expect(found).toEqual(digests);
    });
  });
}

import { describe, expect, test } from "bun:test";
import { Catalog } from "../../../src/cache/catalog.ts";
import { NixcacheError } from "../../../src/errors.ts";
import { parseNarInfo } from "../../../src/nar/narinfo.ts";
import { verifyNarInfo } from "../../../src/nar/signature.ts";
import { publicKeyOf } from "../../../src/nar/signing-key.ts";
import { MEDIA_TYPE_MANIFEST } from "../../../src/oci/manifest.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { readNar } from "../../../src/serve/nar.ts";
import { findKeys } from "../../../src/setup/trusted-keys.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitNames, party, storeHash, type TestParty } from "../../support/protocol.ts";
import {
  bent,
  pushV1,
  V1_KEY,
  V1_PUBLIC_KEY,
  type V1Path,
  v1Manifest,
  v1Path,
  v1Text,
} from "../../support/v1-cache.ts";

const A = v1Path("a");
const B = v1Path("b", ["a", "b"]);

const shown = ({ database }: TestParty, paths: readonly V1Path[]) =>
  paths.filter(({ hash }) => database.view.narinfo(hash) !== undefined).map(({ fields }) => fields.name);

const requests = (store: MemoryStore) =>
  store.calls.splice(0).filter((call) => !call.startsWith("writeManifest"));

describe("a cache that nixcache-oci made", () => {
  test("is read as it is: narinfos with their signatures, NARs by both of their names", async () => {
    const store = new MemoryStore();
    await pushV1(store, [A, B]);
    using reader = party(store);
    expect(await refresh(reader)).toBe(true);
    const { view } = reader.database;
    for (const path of [A, B]) {
      const info = parseNarInfo(view.narinfo(path.hash) ?? "");
      expect(info).toMatchObject({ url: path.newUrl, compression: "xz", fileSize: path.content.length });
      expect(verifyNarInfo(info, [publicKeyOf(V1_KEY)])).toBe(true);
      for (const url of [path.oldUrl, path.newUrl]) {
        const found = view.nar(url.slice("nar/".length));
        const fileHash = parseNarInfo(found?.narinfo ?? "").fileHash;
        expect(Buffer.from(await readNar({ parts: found?.parts ?? [], fileHash }, store))).toEqual(
          Buffer.from(path.content),
        );
      }
    }
    expect(parseNarInfo(view.narinfo(B.hash) ?? "").references.length).toBe(2);
    for (const file of [
      `${A.hash}.nar.zst`,
      `${A.hash}.nar`,
      `${A.hash}`,
      `${storeHash("c")}.nar.xz`,
      "x.nar.xz",
    ])
      expect(view.nar(file)).toBeUndefined();
    expect(reader.warnings).toEqual([]);
    expect(view.generations()).toEqual([]);
    expect(view.uncovered()).toEqual([]);
  });

  test("says by which key it is signed, and when it was made", async () => {
    const store = new MemoryStore();
    await pushV1(store, [A]);
    using reader = party(store);
    await refresh(reader);
    expect(reader.database.view.state().v1).toMatchObject({
      keys: [V1_PUBLIC_KEY],
      generated: Date.UTC(2026, 3, 24, 14, 20, 11),
    });
    expect(findKeys(reader.database.view.publishes())).toMatchObject({
      keys: [{ text: V1_PUBLIC_KEY, from: { source: "nixcache-oci", time: "2026-04-24T14:20:11.000Z" } }],
      sources: 1,
      unsigned: 0,
    });
    await commitNames(reader, ["own"], { keys: [] });
    await refresh(reader, { list: true });
    expect(reader.database.view.publishes().map(({ record }) => record.source)).toEqual([
      "nixcache-oci",
      "paths",
    ]);
    using catalog = new Catalog(reader.database);
    expect(catalog.keys()).toEqual([V1_PUBLIC_KEY]);
  });

  test("is asked for by its digest, and read again only when it has changed", async () => {
    const store = new MemoryStore();
    await pushV1(store, [A]);
    using reader = party(store);
    await refresh(reader);
    store.calls.splice(0);
    expect(await refresh(reader)).toBe(false);
    expect(requests(store)).toEqual(["readManifest nixcache-index", "listTags", "readManifest cache-index"]);
    const index = await pushV1(store, [B]);
    store.calls.splice(0);
    expect(await refresh(reader)).toBe(true);
    expect(requests(store)).toContain(`readBlob ${index}`);
    expect(shown(reader, [A, B])).toEqual(["b"]);
    // A client may have the narinfo of what is gone.
    expect(reader.database.view.nar(A.newUrl.slice(4))?.parts[0]?.blob).toBe(A.digest);
  });

  test("with nothing in it is an index, too", async () => {
    const store = new MemoryStore();
    await pushV1(store, [], { gc_roots: [] });
    using reader = party(store);
    await refresh(reader);
    expect(reader.database.view.count()).toBe(0);
    expect(reader.database.view.v1Layer()).toBeDefined();
    expect(reader.warnings).toEqual([]);
  });

  test("has broken entries: one warning tells of them, the others are there", async () => {
    const store = new MemoryStore();
    const bad = Array.from({ length: 8 }, (_, index) =>
      bent(v1Path(`bad-${index}`), () => ({ nar_size: -index })),
    );
    await pushV1(store, [A, ...bad, B]);
    using reader = party(store);
    await refresh(reader);
    expect(shown(reader, [A, ...bad, B])).toEqual(["a", "b"]);
    expect(reader.warnings).toEqual([
      expect.stringMatching(
        /^the index sha256:\S+ under cache-index of memory: 8 of 10 entries are broken: "bad-\d" \(.*, and 3 more$/,
      ),
    ]);
    await refresh(reader);
    expect(reader.warnings.length).toBe(1);
  });

  test.each<[string, (store: MemoryStore) => Promise<void>, string]>([
    [
      "is cut off",
      async (store) => void (await pushV1(store, [], { text: v1Text([A]).slice(0, -9) })),
      "not valid JSON",
    ],
    [
      "has other bytes than its digest says",
      async (store) => {
        const index = await pushV1(store, [A]);
        store.blobs.set(index, new TextEncoder().encode(v1Text([A]).replace('"a"', '"x"')));
      },
      "is not",
    ],
    ["is gone", async (store) => void store.blobs.delete(await pushV1(store, [A])), "its blob is absent"],
  ])(
    "that %s is an error, never an empty cache, and the view stays as it was",
    async (_, damage, message) => {
      const store = new MemoryStore();
      await pushV1(store, [B]);
      using reader = party(store);
      await refresh(reader);
      await damage(store);
      const failed = refresh(reader);
      await expect(failed).rejects.toMatchObject({
        code: "corrupt",
        message: expect.stringContaining(message),
      });
      await expect(failed).rejects.toMatchObject({ hint: expect.stringContaining("cache-index") });
      expect(shown(reader, [B])).toEqual(["b"]);
    },
  );

  test("that cannot be asked for is an error, never an absent one", async () => {
    const store = new MemoryStore();
    await pushV1(store, [A]);
    using reader = party(store);
    await refresh(reader);
    store.before = (call, subject) => {
      if (call === "readManifest" && subject === "cache-index") throw new NixcacheError("unreachable", "503");
    };
    await expect(refresh(reader)).rejects.toMatchObject({ code: "unreachable" });
    expect(shown(reader, [A])).toEqual(["a"]);
    using late = party(store);
    await expect(refresh(late)).rejects.toMatchObject({ code: "unreachable" });
    expect(late.database.view.state().refreshedAt).toBeUndefined();
  });

  test("has a NAR with other bytes: by neither name do they pass for right ones", async () => {
    const store = new MemoryStore();
    await pushV1(store, [A]);
    store.blobs.set(A.digest, A.content.toReversed());
    using reader = party(store);
    await refresh(reader);
    for (const url of [A.oldUrl, A.newUrl]) {
      const found = reader.database.view.nar(url.slice("nar/".length));
      const { fileHash } = parseNarInfo(found?.narinfo ?? "");
      await expect(readNar({ parts: found?.parts ?? [], fileHash }, store)).rejects.toMatchObject({
        code: "corrupt",
      });
    }
  });

  test("that leaves in the middle leaves the view", async () => {
    const store = new MemoryStore();
    await pushV1(store, [A]);
    using reader = party(store);
    await refresh(reader);
    store.tags.delete("cache-index");
    expect(await refresh(reader)).toBe(true);
    expect(shown(reader, [A])).toEqual([]);
    expect(reader.database.view.state().v1).toBeUndefined();
  });
});

describe("the tag of another tool", () => {
  const put = (store: MemoryStore, manifest: string) => {
    const bytes = new TextEncoder().encode(manifest);
    store.manifests.set("sha256:x" as never, {
      digest: "sha256:x" as never,
      mediaType: MEDIA_TYPE_MANIFEST,
      bytes,
    });
    store.tags.set("cache-index", "sha256:x" as never);
  };

  test.each<[string, (store: MemoryStore) => Promise<unknown>]>([
    [
      "with another media type",
      async (store) =>
        put(store, v1Manifest({ digest: A.digest, size: 5 }, "application/vnd.nix.cache.index.v3+zstd")),
    ],
    [
      "with an image index",
      async (store) =>
        put(
          store,
          '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}',
        ),
    ],
    ["with something that is no manifest", async (store) => put(store, "hello")],
    ["with another version", (store) => pushV1(store, [A], { version: 4 })],
  ])("%s is left alone, with a word about it", async (_, make) => {
    const store = new MemoryStore();
    await make(store);
    using reader = party(store);
    await refresh(reader);
    expect(reader.database.view.count()).toBe(0);
    expect(reader.database.view.v1Layer()).toBeUndefined();
    expect(reader.warnings).toEqual([expect.stringContaining("not read")]);
    await commitNames(reader, ["own"]);
    expect(await fold(reader)).toBe(true);
    await refresh(reader);
    expect(reader.warnings.length).toBe(1);
    expect(reader.database.view.narinfo(storeHash("own"))).toBeDefined();
  });
});

describe("beside generations of ours", () => {
  test("what has not been adopted is in the view, but never in a root", async () => {
    const store = new MemoryStore();
    await pushV1(store, [A]);
    using publisher = party(store);
    await commitNames(publisher, ["own"]);
    expect(await fold(publisher)).toBe(true);
    await refresh(publisher, { list: true });
    const { view } = publisher.database;
    expect([view.narinfo(A.hash), view.narinfo(storeHash("own"))]).not.toContain(undefined);
    expect(view.uncovered()).toEqual([]);
    // Once more with nothing to fold.
    store.calls.splice(0);
    expect(await fold(publisher)).toBe(true);
    expect(store.calls.filter((call) => call.startsWith("write"))).toEqual([]);
    store.tags.delete("cache-index");
    using reader = party(store);
    await refresh(reader);
    expect(shown(reader, [A])).toEqual([]);
    expect(reader.database.view.narinfo(storeHash("own"))).toBeDefined();
  });

  test("an index that changes is seen although the root stays the same", async () => {
    const store = new MemoryStore();
    await pushV1(store, [A]);
    using reader = party(store);
    await commitNames(reader, ["own"]);
    await fold(reader);
    await pushV1(store, [A, B]);
    store.calls.splice(0);
    await refresh(reader);
    expect(shown(reader, [A, B])).toEqual(["a", "b"]);
    store.calls.splice(0);
    await refresh(reader);
    expect(requests(store)).toEqual(["readManifest nixcache-index", "readManifest cache-index"]);
  });

  test("a cache without the tag costs no request for it", async () => {
    const store = new MemoryStore();
    using reader = party(store);
    await commitNames(reader, ["own"]);
    await fold(reader);
    await refresh(reader, { list: true });
    await refresh(reader);
    expect(store.calls.filter((call) => call.endsWith(" cache-index"))).toEqual([]);
  });
});

import { describe, expect, test } from "bun:test";
import { IndexDamaged } from "../../../src/cache/database.ts";
import { deadTag, ROOT_TAG, segmentTag } from "../../../src/cache/tags.ts";
import { NixcacheError } from "../../../src/errors.ts";
import { decodeManifest } from "../../../src/oci/manifest.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitNames, party, storeHash, testEntry, viewOf } from "../../support/protocol.ts";
import { indexLayer } from "../../support/segments.ts";

const NAMES = ["a", "b", "c", "d", "e"];

describe("refresh", () => {
  test("reads what was committed, before any fold", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    using reader = party(store);
    await commitNames(publisher, ["a", "b"]);
    expect(await refresh(reader)).toBe(true);
    expect(viewOf(reader, NAMES)).toEqual(["a", "b"]);
    expect(reader.database.view.narinfo(storeHash("a"))).toBe(testEntry("a").line.narinfo);
  });

  test("an empty cache is an empty view, and counts as read", async () => {
    using reader = party(new MemoryStore());
    expect(await refresh(reader)).toBe(false);
    expect(reader.database.view.count()).toBe(0);
    expect(reader.database.view.state().refreshedAt).toBe(reader.host.now());
  });

  test("an unchanged root costs one request, and the tags are listed after an hour", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    using reader = party(store);
    await commitNames(publisher, ["a"]);
    await fold(publisher);
    await refresh(reader);
    store.calls.length = 0;
    expect(await refresh(reader)).toBe(false);
    expect(store.calls).toEqual([`readManifest ${ROOT_TAG}`]);
    // A segment that nobody folded is found by the hourly list.
    await commitNames(publisher, ["b"]);
    await refresh(reader);
    expect(viewOf(reader, NAMES)).toEqual(["a"]);
    reader.host.time += 3_600_000;
    await refresh(reader);
    expect(viewOf(reader, NAMES)).toEqual(["a", "b"]);
  });

  test("a reader that has the layers below fetches only what is new", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    using reader = party(store);
    await commitNames(
      publisher,
      Array.from({ length: 200 }, (_, i) => `base-${i}`),
    );
    await fold(publisher);
    await refresh(reader);
    await commitNames(publisher, ["a"]);
    await fold(publisher);
    store.calls.length = 0;
    await refresh(reader);
    expect(store.calls.filter((call) => call.startsWith("readBlob"))).toHaveLength(1);
    expect(viewOf(reader, NAMES)).toEqual(["a"]);
    expect(reader.database.view.count()).toBe(201);
  });

  test.each([
    ["at once", 0],
    ["in the middle", 0.5],
    ["behind its last byte", 1],
  ])("of a root layer whose bytes turn out to be others %s nothing stays in the view", async (_, share) => {
    const store = new MemoryStore();
    using publisher = party(store);
    using reader = party(store);
    await commitNames(publisher, ["a", "b"]);
    await fold(publisher);
    const root = store.manifests.get(store.tags.get(ROOT_TAG) as never);
    const [layer] = decodeManifest(root?.bytes as Uint8Array, "root").layers;
    const { readBlob } = MemoryStore.prototype;
    store.readBlob = async (digest, options) => {
      const stream = await readBlob.call(store, digest, options);
      if (digest !== layer?.digest || stream === undefined) return stream;
      const bytes = await new Response(stream).bytes();
      const error = new NixcacheError("corrupt", "got more than the expected bytes");
      return new ReadableStream<Uint8Array>({
        pull(controller) {
          const some = bytes.slice(0, bytes.length * share);
          if (some.length > 0) controller.enqueue(some);
          controller.error(error);
        },
      });
    };
    await refresh(reader);
    // Read from the segment, and from nothing else.
    expect(viewOf(reader, NAMES)).toEqual(["a", "b"]);
    expect(reader.database.view.layers()).toHaveLength(1);
    expect(reader.database.view.layers().map(({ digest }) => digest)).not.toContain(layer?.digest as never);
    expect(reader.warnings.join()).toContain("reading the segments instead");
  });

  test("R7: a segment missing from a stale list stays while its exact tag is there", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    using reader = party(store);
    const name = await commitNames(publisher, ["a"]);
    await refresh(reader);
    store.hidden.add(segmentTag(name));
    await refresh(reader, { list: true });
    expect(viewOf(reader, NAMES)).toEqual(["a"]);
    await store.deleteManifest(store.tags.get(segmentTag(name)) as never);
    await refresh(reader, { list: true });
    expect(viewOf(reader, NAMES)).toEqual([]);
  });

  test("R5: a layer counts only while all it and the layers below cover are alive", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const first = await commitNames(publisher, ["a", ...Array.from({ length: 50 }, (_, i) => `base-${i}`)]);
    await fold(publisher);
    await commitNames(publisher, ["a", "b"]);
    await fold(publisher);
    const root = store.manifests.get(store.tags.get(ROOT_TAG) as never);
    expect(decodeManifest(root?.bytes as Uint8Array, "root").layers).toHaveLength(2);
    const segment = store.manifests.get(store.tags.get(segmentTag(first)) as never);
    await store.writeManifest(deadTag(segmentTag(first), 0), "", segment?.bytes as Uint8Array);
    for (const known of [true, false]) {
      using fresh = party(store);
      const reader = known ? publisher : fresh;
      await refresh(reader, { list: true });
      expect(viewOf(reader, [...NAMES, "base-1"])).toEqual(["a", "b"]);
    }
  });

  test("a dead tag that was seen once counts for ever, also when a stale list hides it", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const name = await commitNames(publisher, ["a"]);
    const segment = store.manifests.get(store.tags.get(segmentTag(name)) as never);
    await store.writeManifest(deadTag(segmentTag(name), 0), "", segment?.bytes as Uint8Array);
    await refresh(publisher, { list: true });
    store.hidden.add(deadTag(segmentTag(name), 0));
    await refresh(publisher, { list: true });
    expect(viewOf(publisher, NAMES)).toEqual([]);
  });

  test("a root layer that is gone or damaged is a matter of time, not of truth", async () => {
    for (const damage of ["gone", "other bytes", "not zstd"]) {
      const store = new MemoryStore();
      using publisher = party(store);
      using reader = party(store);
      await commitNames(publisher, ["a"]);
      await fold(publisher);
      const root = store.manifests.get(store.tags.get(ROOT_TAG) as never);
      const layer = decodeManifest(root?.bytes as Uint8Array, "root").layers[0]?.digest as never;
      if (damage === "gone") store.blobs.delete(layer);
      else store.blobs.set(layer, new TextEncoder().encode("something else"));
      await refresh(reader);
      expect(viewOf(reader, NAMES)).toEqual(["a"]);
      expect(reader.warnings.length).toBe(damage === "gone" ? 0 : 1);
    }
  });

  test("a damaged segment is an error, and the view stays as it was", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    using reader = party(store);
    await commitNames(publisher, ["a"]);
    await refresh(reader);
    const name = await commitNames(publisher, ["b"]);
    const segment = store.manifests.get(store.tags.get(segmentTag(name)) as never);
    const layer = decodeManifest(segment?.bytes as Uint8Array, name).layers[0]?.digest as never;
    store.blobs.set(layer, new TextEncoder().encode("something else"));
    await expect(refresh(reader, { list: true })).rejects.toMatchObject({ code: "corrupt" });
    expect(viewOf(reader, NAMES)).toEqual(["a"]);
  });

  test("a segment whose index layer is lost is an error, never a generation that is over", async () => {
    for (const known of [false, true]) {
      const store = new MemoryStore();
      using publisher = party(store);
      using reader = party(store);
      await commitNames(publisher, ["a"]);
      if (known) await refresh(reader);
      const name = await commitNames(publisher, ["b"]);
      store.blobs.delete(indexLayer(store, name));
      const error = await refresh(reader, { list: true }).catch((error) => error);
      expect([error.code, error.message]).toEqual(["corrupt", expect.stringContaining("is absent")]);
      expect(viewOf(reader, NAMES)).toEqual(known ? ["a"] : []);
      // Gone is one whose tag is 404 as well.
      await store.deleteManifest(store.tags.get(segmentTag(name)) as never);
      await refresh(reader, { list: true });
      expect(viewOf(reader, NAMES)).toEqual(["a"]);
    }
  });

  test("a tombstone wins over everything: the segment's tag, its manifest, a root that covers it, the local index", async () => {
    for (const hidden of [true, false]) {
      for (const folded of [true, false]) {
        const store = new MemoryStore();
        using publisher = party(store);
        using reader = party(store);
        const over = await commitNames(publisher, ["a", "b"]);
        await commitNames(publisher, ["b", "c"]);
        if (folded) await fold(publisher);
        await refresh(reader, { list: true });
        expect(viewOf(reader, NAMES)).toEqual(["a", "b", "c"]);
        const tag = segmentTag(over);
        const segment = store.manifests.get(store.tags.get(tag) as never);
        await store.writeManifest(deadTag(tag, publisher.host.time), "", segment?.bytes as Uint8Array);
        if (hidden) store.hidden.add(tag);
        for (const context of [reader, party(store)]) {
          await refresh(context, { list: true });
          expect([hidden, folded, viewOf(context, NAMES)]).toEqual([hidden, folded, ["b", "c"]]);
        }
        // For ever, whatever the list says of the tombstone later.
        store.hidden.add(deadTag(tag, publisher.host.time));
        await refresh(reader, { list: true });
        expect(viewOf(reader, NAMES)).toEqual(["b", "c"]);
      }
    }
  });

  test("defect 1: a failed read is an error, never an empty index", async () => {
    for (const failing of ["listTags", "readManifest", "readBlob"]) {
      const store = new MemoryStore();
      using publisher = party(store);
      using reader = party(store);
      await commitNames(publisher, ["a"]);
      await refresh(reader);
      await commitNames(publisher, ["b"]);
      store.before = (call) => {
        if (call === failing) throw new Error("503");
      };
      await expect(refresh(reader, { list: true })).rejects.toThrow("503");
      expect(viewOf(reader, NAMES)).toEqual(["a"]);
    }
  });

  test("a local index that was damaged is read anew", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    await commitNames(publisher, ["a"]);
    const update = publisher.database.update.bind(publisher.database);
    let damages = 1;
    publisher.database.update = async (change, wait) => {
      if (damages-- > 0) throw new IndexDamaged("index.sqlite", new Error("malformed"));
      return update(change, wait);
    };
    await refresh(publisher, { list: true });
    expect(viewOf(publisher, NAMES)).toEqual(["a"]);
    expect(publisher.warnings[0]).toContain("malformed");
  });

  test("a process that never lets go of the index is named, and given up in the end", async () => {
    using reader = party(new MemoryStore());
    using other = party(new MemoryStore());
    const blocked = Object.assign(other, { database: reader.database });
    await reader.database.update(
      async () => {
        await expect(refresh(blocked)).rejects.toMatchObject({ code: "filesystem" });
      },
      async () => {},
    );
    expect(blocked.warnings).toHaveLength(1);
    expect(blocked.warnings[0]).toContain(reader.database.path);
  });

  test("two processes on one index refresh one after the other", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    using reader = party(store);
    await commitNames(publisher, ["a"]);
    const results = await Promise.all([refresh(reader, { list: true }), refresh(reader, { list: true })]);
    expect(results.sort()).toEqual([false, true]);
    expect(viewOf(reader, NAMES)).toEqual(["a"]);
  });

  test("defect 16: the NAR of an entry that left the index is known for 35 days", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const name = await commitNames(publisher, ["a"]);
    await refresh(publisher, { list: true });
    const { file } = testEntry("a").line;
    await store.deleteManifest(store.tags.get(segmentTag(name)) as never);
    await refresh(publisher, { list: true });
    expect(viewOf(publisher, NAMES)).toEqual([]);
    expect(publisher.database.view.nar(file)?.parts).toHaveLength(1);
    publisher.host.time += 36 * 86_400_000;
    await refresh(publisher, { list: true });
    expect(publisher.database.view.nar(file)).toBeUndefined();
  });
});

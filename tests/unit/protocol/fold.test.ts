import { describe, expect, test } from "bun:test";
import { ROOT_TAG } from "../../../src/cache/tags.ts";
import { NixcacheError } from "../../../src/errors.ts";
import type { Digest } from "../../../src/oci/digest.ts";
import { decodeManifest } from "../../../src/oci/manifest.ts";
import { fold, foldOrWarn } from "../../../src/protocol/fold.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitNames, party, storeHash, testEntry, viewOf } from "../../support/protocol.ts";

function rootOf(store: MemoryStore) {
  const manifest = store.manifests.get(store.tags.get(ROOT_TAG) as Digest);
  return manifest && decodeManifest(manifest.bytes, "root");
}

/** Everything a reader with an empty index asks for. */
async function freshReader(store: MemoryStore, names: readonly string[]) {
  using reader = party(store);
  store.calls.length = 0;
  await refresh(reader);
  return { view: viewOf(reader, names), calls: [...store.calls] };
}

describe("fold", () => {
  test("afterwards a new reader reads the root alone, and no segment", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    await commitNames(publisher, ["a", "b"]);
    await commitNames(publisher, ["b", "c"]);
    expect(await fold(publisher)).toBe(true);
    const { view, calls } = await freshReader(store, ["a", "b", "c"]);
    expect(view).toEqual(["a", "b", "c"]);
    expect(calls.map((call) => call.split(" ")[0])).toEqual(["listTags", "readManifest", "readBlob"]);
  });

  test("with nothing to fold it writes nothing", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    await commitNames(publisher, ["a"]);
    await fold(publisher);
    const before = store.tags.get(ROOT_TAG);
    expect(await fold(publisher)).toBe(true);
    expect(store.tags.get(ROOT_TAG)).toBe(before as Digest);
  });

  test("a line that the layers below have is not written again", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const base = Array.from({ length: 300 }, (_, i) => `base-${i}`);
    await commitNames(publisher, base);
    await fold(publisher);
    await commitNames(publisher, [...base, "a"]);
    await fold(publisher);
    const [below, top] = rootOf(store)?.layers ?? [];
    expect(top?.size).toBeLessThan((below?.size ?? 0) / 10);
    expect((await freshReader(store, ["a", "base-7"])).view).toEqual(["a", "base-7"]);
  });

  test("a newer line for a known path goes on top and is the one that is shown", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    await commitNames(publisher, ["a", ...Array.from({ length: 100 }, (_, i) => `base-${i}`)]);
    await fold(publisher);
    const newer = testEntry("a", {
      added: 1_800_000_000,
      sigs: [`k:${Buffer.alloc(64).toString("base64")}`],
    });
    const { GenerationWriter } = await import("../../../src/protocol/generation.ts");
    const { testRecord } = await import("../../support/protocol.ts");
    const writer = new GenerationWriter(publisher, {});
    await writer.commit(testRecord([newer.line], publisher.host), [newer.line], [newer.blob]);
    await fold(publisher);
    using reader = party(store);
    await refresh(reader);
    expect(reader.database.view.narinfo(storeHash("a"))).toBe(newer.line.narinfo);
    expect(reader.database.view.count()).toBe(101);
  });

  test("the stack stays short over many publishes", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const names: string[] = [];
    for (let i = 0; i < 60; i++) {
      names.push(`path-${i}`);
      await commitNames(publisher, [`path-${i}`]);
      await fold(publisher);
      publisher.host.time += 60_000;
      expect(rootOf(store)?.layers.length).toBeLessThanOrEqual(16);
    }
    expect((await freshReader(store, names)).view).toEqual(names.sort());
  });

  test("two folds at once, the last root wins: nothing is lost, and the loser folds again", async () => {
    const store = new MemoryStore();
    using one = party(store);
    using two = party(store);
    two.host.time += 1000;
    await commitNames(one, ["a"]);
    await commitNames(two, ["b"]);
    // Both have read before either writes.
    let waiting = 0;
    let release = () => {};
    const both = new Promise<void>((resolve) => {
      release = resolve;
    });
    store.before = async (call, subject) => {
      if (call !== "writeManifest" || subject !== ROOT_TAG || waiting >= 2) return;
      if (++waiting === 2) release();
      await both;
    };
    expect(await Promise.all([fold(one), fold(two)])).toEqual([true, true]);
    expect((await freshReader(store, ["a", "b"])).view).toEqual(["a", "b"]);
  });

  test("a root that names a layer which is gone is made anew", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const base = Array.from({ length: 100 }, (_, i) => `base-${i}`);
    await commitNames(publisher, base);
    await fold(publisher);
    for (const refusesMissing of [true, false]) {
      store.refusesMissing = refusesMissing;
      store.strictness = "unknown";
      store.blobs.delete(rootOf(store)?.layers[0]?.digest as Digest);
      await commitNames(publisher, [`new-${refusesMissing}`]);
      expect(await fold(publisher)).toBe(true);
      for (const { digest } of rootOf(store)?.layers ?? []) expect(store.blobs.has(digest)).toBe(true);
    }
    expect((await freshReader(store, ["base-1", "new-true", "new-false"])).view).toHaveLength(3);
  });

  test("its failure is a warning", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    await commitNames(publisher, ["a"]);
    store.before = (call, subject) => {
      if (call === "writeManifest" && subject === ROOT_TAG)
        throw new NixcacheError("denied", "immutable tag");
    };
    await foldOrWarn(publisher);
    expect(publisher.warnings).toHaveLength(1);
    expect(publisher.warnings[0]).toContain("immutable tag");
    expect((await freshReader(store, ["a"])).view).toEqual(["a"]);
  });
});

import { describe, expect, test } from "bun:test";
import { MAX_BLOBS } from "../../../src/cache/manifests.ts";
import { generationTime } from "../../../src/cache/tags.ts";
import { NixcacheError } from "../../../src/errors.ts";
import type { Digest } from "../../../src/oci/digest.ts";
import { decodeManifest } from "../../../src/oci/manifest.ts";
import { GenerationWriter } from "../../../src/protocol/generation.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { isStrict } from "../../../src/protocol/strictness.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitNames, party, type TestParty, testEntry, testRecord, viewOf } from "../../support/protocol.ts";

function names(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `path-${i}`);
}

function layersOf(store: MemoryStore, tag: string): Digest[] {
  const manifest = store.manifests.get(store.tags.get(tag) as Digest);
  return decodeManifest(manifest?.bytes as Uint8Array, tag).layers.map(({ digest }) => digest);
}

/** Uploads and reports entries; answers how to commit them. */
async function upload(context: TestParty, entryNames: readonly string[]) {
  const writer = new GenerationWriter(context, {});
  const entries = entryNames.map((name) => testEntry(name));
  for (const { blob } of entries) {
    await context.store.writeBlob(blob);
    await writer.uploaded(blob);
  }
  const lines = entries.map(({ line }) => line);
  const blobs = entries.map(({ blob }) => blob);
  return { blobs, commit: () => writer.commit(testRecord(lines, context.host), lines, blobs) };
}

describe("a generation", () => {
  test("of few blobs is one manifest: the index layer, then the blobs", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    await commitNames(publisher, ["a", "b"]);
    const [segment, ...others] = [...store.tags.keys()];
    expect(others).toEqual([]);
    expect(
      layersOf(store, segment as string)
        .slice(1)
        .sort(),
    ).toEqual([testEntry("a").blob.digest, testEntry("b").blob.digest].sort());
  });

  test("of many blobs has holds with its name, and every blob is in one of the manifests", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const { blobs, commit } = await upload(publisher, names(1000));
    expect(store.tagsOf("hold-").length).toBe(2);
    const result = await commit();
    const name = "committed" in result ? result.committed : "";
    expect(store.tagsOf("hold-").every((tag) => tag.startsWith(`hold-${name}-`))).toBe(true);
    const named = new Set([...store.tags.keys()].flatMap((tag) => layersOf(store, tag)));
    expect(blobs.every(({ digest }) => named.has(digest))).toBe(true);
    for (const tag of store.tags.keys())
      expect(layersOf(store, tag).length).toBeLessThanOrEqual(MAX_BLOBS + 1);
    store.collect();
    using reader = party(store);
    await refresh(reader);
    expect(viewOf(reader, names(1000))).toHaveLength(1000);
  });

  test("restating more blobs than a manifest takes puts the rest into holds", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const entries = names(900).map((name) => testEntry(name));
    for (const { blob } of entries) store.blobs.set(blob.digest, blob.content);
    const lines = entries.map(({ line }) => line);
    const writer = new GenerationWriter(publisher, {});
    const result = await writer.commit(
      testRecord(lines, publisher.host),
      lines,
      entries.map(({ blob }) => blob),
    );
    expect(result).toHaveProperty("committed");
    store.collect();
    for (const { blob } of entries) expect(store.blobs.has(blob.digest)).toBe(true);
  });

  test("blobs are held after 15 minutes, however few", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const writer = new GenerationWriter(publisher, {});
    for (const name of ["a", "b"]) {
      const { blob } = testEntry(name);
      await store.writeBlob(blob);
      await writer.uploaded(blob);
      publisher.host.time += 16 * 60_000;
    }
    expect(store.tagsOf("hold-")).toHaveLength(1);
    store.collect();
    expect(store.blobs.has(testEntry("a").blob.digest)).toBe(true);
  });

  test("holds older than a day are written again under a new name", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const { blobs, commit } = await upload(publisher, names(500));
    const [old] = store.tagsOf("hold-");
    publisher.host.time += 25 * 3_600_000;
    const result = await commit();
    const name = "committed" in result ? result.committed : "";
    expect(old?.startsWith(`hold-${name}-`)).toBe(false);
    // gc removes the old hold: the generation does not need it.
    await store.deleteManifest(store.tags.get(old as string) as Digest);
    store.collect();
    for (const { digest } of blobs) expect(store.blobs.has(digest)).toBe(true);
  });

  test("what a hold of a day ago held is held anew, by the next hold too", async () => {
    for (const how of ["holdAll", "uploaded"]) {
      const store = new MemoryStore();
      using publisher = party(store);
      const writer = new GenerationWriter(publisher, {});
      const [first, second] = [testEntry("first").blob, testEntry("second").blob];
      for (const blob of [first, second]) await store.writeBlob(blob);
      await writer.uploaded(first);
      await writer.holdAll();
      const old = store.tagsOf("hold-");
      publisher.host.time += 24 * 3_600_000;
      await writer.uploaded(second);
      if (how === "holdAll") expect(await writer.holdAll()).toBe(true);
      const young = store.tagsOf("hold-").filter((tag) => !old.includes(tag));
      const held = young.flatMap((tag) => layersOf(store, tag));
      expect([how, held.sort()]).toEqual([how, [first.digest, second.digest].sort()]);
    }
  });

  test("is not committed under a name that became a day old while its holds were written", async () => {
    for (const strict of [true, false]) {
      const store = new MemoryStore();
      if (!strict) store.strictness = "unknown";
      store.refusesMissing = strict;
      using publisher = party(store);
      const entries = names(900).map((name) => testEntry(name));
      for (const { blob } of entries) store.blobs.set(blob.digest, blob.content);
      const lines = entries.map(({ line }) => line);
      await isStrict(publisher);
      let slow = true;
      store.before = (call, subject) => {
        if (call !== "writeManifest" || !subject.startsWith("hold-") || !slow) return;
        slow = false;
        publisher.host.time += 24 * 3_600_000;
      };
      const writer = new GenerationWriter(publisher, {});
      const record = testRecord(lines, publisher.host);
      const result = await writer.commit(
        record,
        lines,
        entries.map(({ blob }) => blob),
      );
      const name = "committed" in result ? result.committed : "";
      expect(publisher.host.now() - generationTime(name)).toBeLessThan(3_600_000);
      // With its own holds every blob stays: those of the old name may go.
      for (const tag of store.tagsOf("hold-")) {
        if (!tag.startsWith(`hold-${name}-`)) await store.deleteManifest(store.tags.get(tag) as Digest);
      }
      store.collect();
      for (const { blob } of entries) expect(store.blobs.has(blob.digest)).toBe(true);
    }
  });

  test("holds that fail are written again: neither the upload nor the commit fails for them", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    let failures = 0;
    store.before = (call, subject) => {
      if (call !== "writeManifest" || !subject.startsWith("hold-") || failures >= 3) return;
      failures++;
      throw new NixcacheError("unreachable", "the registry is down");
    };
    const entries = names(1000).map((name) => testEntry(name));
    const writer = new GenerationWriter(publisher, {});
    for (const { blob } of entries) {
      await store.writeBlob(blob);
      await writer.uploaded(blob);
      publisher.host.time += 1000;
    }
    expect(failures).toBe(3);
    // Not at every upload while it fails, and at once when it does not.
    expect(store.calls.filter((call) => call.startsWith("writeManifest hold-")).length).toBeLessThan(7);
    const held = new Set(store.tagsOf("hold-").flatMap((tag) => layersOf(store, tag)));
    expect(held.size).toBe(2 * MAX_BLOBS);
    const lines = entries.map(({ line }) => line);
    const blobs = entries.map(({ blob }) => blob);
    const result = await writer.commit(testRecord(lines, publisher.host), lines, blobs);
    expect(result).toHaveProperty("committed");
    store.collect();
    for (const { digest } of blobs) expect(store.blobs.has(digest)).toBe(true);
  });

  test("a hold that the registry forbids is told at once", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    store.before = (call, subject) => {
      if (call === "writeManifest" && subject.startsWith("hold-"))
        throw new NixcacheError("denied", "no right to write");
    };
    await expect(upload(publisher, names(500))).rejects.toThrow("no right to write");
  });

  test("a blob that is gone keeps no other one out of its hold", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const gone = testEntry("path-7").blob;
    store.before = (call) => {
      if (call === "writeManifest") store.blobs.delete(gone.digest);
    };
    const { commit, blobs } = await upload(publisher, names(MAX_BLOBS));
    store.collect();
    expect(blobs.filter(({ digest }) => !store.blobs.has(digest))).toEqual([gone]);
    expect(await commit()).toEqual({ missing: [gone.digest] });
    store.before = () => {};
    await store.writeBlob(gone);
    expect(await commit()).toHaveProperty("committed");
  });

  test("holds that vanish before the commit are noticed, and written again", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const { blobs, commit } = await upload(publisher, names(500));
    const [hold] = store.tagsOf("hold-");
    await store.deleteManifest(store.tags.get(hold as string) as Digest);
    const result = await commit();
    const name = "committed" in result ? result.committed : "";
    expect(store.tagsOf("hold-").some((tag) => tag.startsWith(`hold-${name}-`))).toBe(true);
    store.collect();
    for (const { digest } of blobs) expect(store.blobs.has(digest)).toBe(true);
  });

  test("a blob that is gone at the commit is named, and nothing is committed", async () => {
    for (const strict of [true, false]) {
      const store = new MemoryStore();
      store.strictness = "unknown";
      store.refusesMissing = strict;
      using publisher = party(store);
      const { blobs, commit } = await upload(publisher, ["a", "b"]);
      store.blobs.delete(blobs[1]?.digest as Digest);
      expect(await commit()).toEqual({ missing: [blobs[1]?.digest as Digest] });
      expect(store.tagsOf("seg-")).toEqual([]);
      await store.writeBlob(blobs[1] as never);
      expect(await commit()).toHaveProperty("committed");
    }
  });

  test("R6: on a lax registry holds name everything, the index layer too, before the commit", async () => {
    const store = new MemoryStore();
    store.strictness = "unknown";
    store.refusesMissing = false;
    using publisher = party(store);
    const { blobs, commit } = await upload(publisher, ["a", "b"]);
    expect(await isStrict(publisher)).toBe(false);
    await commit();
    const [segment] = store.tagsOf("seg-");
    const [hold] = store.tagsOf("hold-");
    const index = layersOf(store, segment as string)[0] as Digest;
    expect(layersOf(store, hold as string)).toEqual([index, ...blobs.map(({ digest }) => digest)]);
    const order = store.calls.filter((call) => /^(writeManifest (hold|seg)|statBlob)/.test(call));
    const held = order.findIndex((call) => call.startsWith("writeManifest hold"));
    const committed = order.findIndex((call) => call.startsWith("writeManifest seg"));
    for (const { digest } of blobs) expect(order.slice(held, committed)).toContain(`statBlob ${digest}`);
  });

  test("the probe for laxness is asked once a cache and leaves no tag", async () => {
    const store = new MemoryStore();
    store.strictness = "unknown";
    using publisher = party(store);
    expect(await isStrict(publisher)).toBe(true);
    const calls = store.calls.length;
    expect(await isStrict(publisher)).toBe(true);
    expect(store.calls.length).toBe(calls);
    expect(store.tags.size).toBe(0);
  });

  test("a refusal for blobs that are all there is waited out", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const { commit } = await upload(publisher, ["a"]);
    const write = store.writeManifest.bind(store);
    let refusals = 2;
    store.writeManifest = async (reference, mediaType, bytes) =>
      reference.startsWith("seg-") && refusals-- > 0
        ? { blobsMissing: true as const, digests: [] }
        : write(reference, mediaType, bytes);
    expect(await commit()).toHaveProperty("committed");
  });
});

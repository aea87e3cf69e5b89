/** What a collection finds beside generations: an old root, holds, former roots. */
import { describe, expect, test } from "bun:test";
import { MAX_BLOBS } from "../../../src/cache/manifests.ts";
import { collectGarbage } from "../../../src/gc/gc.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { EMPTY_CONFIG, EMPTY_CONFIG_BYTES, MEDIA_TYPE_MANIFEST } from "../../../src/oci/manifest.ts";
import type { StoredManifest } from "../../../src/oci/store.ts";
import { sweep } from "../../../src/protocol/end.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { GenerationWriter } from "../../../src/protocol/generation.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { DAY, HOUR, MAIN_LINE, STRETCH_POLICY, Stretch } from "../../support/gc-stretch.ts";
import { MemoryStore, withMethods } from "../../support/memory-store.ts";
import { commitNames, party, TestHost, testEntry, viewOf } from "../../support/protocol.ts";

const START = Date.UTC(2026, 0, 1);

describe("gc and what is left over", () => {
  test("the root covers what lives: a reader that is new reads no generation", async () => {
    const store = new MemoryStore();
    using stretch = new Stretch(store, START);
    await stretch.run(14);
    expect(store.tagsOf("dead-").length).toBeGreaterThan(0);
    await fold(stretch.publisher);
    stretch.host.time += 10 * DAY;
    const { decisions } = await stretch.collect();
    expect(decisions.filter(({ ends }) => ends).length).toBeGreaterThan(0);
    store.calls.length = 0;
    using reader = party(store);
    await refresh(reader, { list: true });
    expect(store.calls.filter((call) => call.includes("seg-"))).toEqual([]);
  });

  test("holds that say of which generation they are stay while it is there, whatever their own name", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const holdFor = async (holdsFor: string | undefined, name: string) => {
      const writer = new GenerationWriter(machine, { holdsFor });
      const { blob } = testEntry(name);
      await store.writeBlob(blob);
      await writer.uploaded(blob);
      await writer.holdAll();
      return store.tagsOf("hold-").at(-1) as string;
    };
    const there = await commitNames(machine, ["there"], MAIN_LINE);
    const kept = await holdFor(there, "a");
    machine.host.time += HOUR;
    await holdFor("20200101t000000z-0123456789abcdef", "b");
    machine.host.time += HOUR;
    await holdFor("no name", "c");
    machine.host.time += HOUR;
    const odd = await holdFor(undefined, "d");
    const { digest, mediaType } = store.manifests.get(
      store.tags.get(odd) as never,
    ) as never as StoredManifest;
    store.manifests.set(digest, { digest, mediaType, bytes: new TextEncoder().encode("no manifest") });
    machine.host.time += 8 * DAY;
    // By its exact tag: the list may lack it.
    store.hidden.add(`seg-${there}`);
    await sweep(machine);
    expect(store.tagsOf("hold-")).toEqual([kept, odd]);
  });

  test("holds go a week after they lost their publisher, and never while their generation is there", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const hold = async (name: string, days: number) => {
      using publisher = party(store, new TestHost(machine.host.time - days * DAY, days));
      const writer = new GenerationWriter(publisher, {});
      for (let i = 0; i < MAX_BLOBS; i++) {
        const { blob } = testEntry(`${name}-${i}`);
        await store.writeBlob(blob);
        await writer.uploaded(blob);
      }
    };
    await hold("killed", 8);
    await hold("under-way", 6);
    const [old, young] = store.tagsOf("hold-") as [string, string];
    // A generation of 500 blobs has a hold; its segment is not in the list that gc gets.
    machine.host.time -= 20 * DAY;
    const names = Array.from({ length: 500 }, (_, i) => `path-${i}`);
    const committed = await commitNames(machine, names, MAIN_LINE);
    machine.host.time += 20 * DAY;
    store.hidden.add(`seg-${committed}`);
    const { freed } = await collectGarbage(machine, STRETCH_POLICY);
    expect(freed?.gone).toBe(1);
    expect(store.tagsOf("hold-")).not.toContain(old);
    expect(store.tagsOf("hold-")).toContain(young);
    expect(store.tagsOf(`hold-${committed}`).length).toBeGreaterThan(0);
  });

  test("roots that were replaced are deleted after a day where the store lists them, others' manifests never", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const untagged = () =>
      [...store.manifests.keys()].filter((digest) => ![...store.tags.values()].includes(digest));
    const collector = { ...publisher, store: withMethods(store, { listUntagged: async () => untagged() }) };
    const others = new TextEncoder().encode(JSON.stringify(imageOfOthers));
    const broken = digestOf("no manifest");
    store.manifests.set(broken, { digest: broken, mediaType: MEDIA_TYPE_MANIFEST, bytes: new Uint8Array() });
    await store.writeBlob({ ...imageOfOthers.config, content: EMPTY_CONFIG_BYTES });
    await store.writeManifest(digestOf(others), MEDIA_TYPE_MANIFEST, others);
    for (const name of ["a", "b", "c"]) {
      await commitNames(publisher, [name], MAIN_LINE);
      await fold(publisher);
    }
    expect(untagged().length).toBe(4);
    await collectGarbage(collector, STRETCH_POLICY);
    expect(untagged().length).toBe(4);
    publisher.host.time += 27 * HOUR;
    await collectGarbage(collector, STRETCH_POLICY);
    expect(untagged().sort()).toEqual([digestOf(others), broken].sort());
    using reader = party(store);
    await refresh(reader, { list: true });
    expect(viewOf(reader, ["a", "b", "c"])).toEqual(["a", "b", "c"]);
  });
});

const imageOfOthers = {
  schemaVersion: 2,
  mediaType: MEDIA_TYPE_MANIFEST,
  config: EMPTY_CONFIG,
  layers: [],
  annotations: { "org.opencontainers.image.created": "2020-01-01T00:00:00Z" },
};

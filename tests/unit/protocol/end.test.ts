/** When what has ended may be deleted, by clocks that differ, and what is never deleted. */
import { describe, expect, test } from "bun:test";
import { deadTag, generationName, generationTime, holdTag, segmentTag } from "../../../src/cache/tags.ts";
import type { Digest } from "../../../src/oci/digest.ts";
import { endGenerations, sweep } from "../../../src/protocol/end.ts";
import { GenerationWriter } from "../../../src/protocol/generation.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitNames, party, TestHost, type TestParty, testEntry, viewOf } from "../../support/protocol.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A machine whose clock is off by this much, which follows another one's. */
function machineOf(store: MemoryStore, clock: TestHost, off: number): TestParty {
  const host = new TestHost();
  host.now = () => clock.time + off;
  return party(store, host);
}

describe("a generation that has ended", () => {
  test.each([
    ["26 hours after its end", 0, 0, 26 * HOUR],
    ["by a clock that is an hour ahead, of one that is an hour behind", -HOUR, HOUR, DAY],
    ["by a clock that is an hour behind, of one that is an hour ahead", HOUR, -HOUR, 28 * HOUR],
  ])("is deleted %s, and never before a view of a day ago is over", async (_, ending, sweeping, after) => {
    const store = new MemoryStore();
    const clock = new TestHost(Date.UTC(2026, 0, 1, 12));
    using publisher = machineOf(store, clock, 0);
    const name = await commitNames(publisher, ["a"]);
    clock.time += 3 * DAY;
    using ender = machineOf(store, clock, ending);
    using reader = machineOf(store, clock, 0);
    await refresh(reader, { list: true });
    expect(await endGenerations(ender, [name])).toEqual([name]);
    const ended = clock.time;
    using sweeper = machineOf(store, clock, sweeping);
    for (const time of [0, DAY - MINUTE, after - MINUTE]) {
      clock.time = ended + time;
      expect(await sweep(sweeper)).toMatchObject({ gone: [], waiting: 1, deleted: [] });
      store.collect();
      // Whoever looked before the end finds all that it was shown, for a day.
      expect(viewOf(reader, ["a"])).toEqual(["a"]);
      expect(store.blobs.has(testEntry("a").blob.digest)).toBe(true);
    }
    expect(after).toBeGreaterThanOrEqual(DAY);
    clock.time = ended + after;
    expect((await sweep(sweeper)).gone).toHaveLength(1);
    store.collect();
    expect(store.blobs.has(testEntry("a").blob.digest)).toBe(false);
    expect(store.tagsOf("dead-").concat(store.tagsOf("seg-"))).toEqual([]);
  });

  test("is not one that is younger than a day, to the second", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const name = await commitNames(publisher, ["a"]);
    publisher.host.time = generationTime(name) + DAY - 1;
    expect(await endGenerations(publisher, [name])).toEqual([]);
    expect(store.tagsOf("dead-")).toEqual([]);
    publisher.host.time++;
    expect(await endGenerations(publisher, [name])).toEqual([name]);
  });

  test("loses its segment first: without its dead tag it would be alive again", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const name = await commitNames(publisher, ["a"]);
    publisher.host.time += 3 * DAY;
    await endGenerations(publisher, [name]);
    // Another manifest under the dead tag, as of a generation whose blobs were gone.
    const [dead = ""] = store.tagsOf("dead-");
    const other = store.manifests.get(store.tags.get(segmentTag(name)) as Digest);
    const text = new TextDecoder().decode(other?.bytes);
    await store.writeManifest(dead, "", Buffer.from(text.replace('{"schemaVersion"', '{ "schemaVersion"')));
    publisher.host.time += 27 * HOUR;
    let killed = 0;
    store.before = (call) => {
      if (call === "deleteManifest" && killed++ === 1) throw new Error("killed");
    };
    await expect(sweep(publisher)).rejects.toThrow("killed");
    expect([store.tagsOf("seg-"), store.tagsOf("dead-")]).toEqual([[], [dead]]);
  });
});

describe("a hold", () => {
  async function held(store: MemoryStore, context: TestParty) {
    const writer = new GenerationWriter(context, {});
    const { blob } = testEntry("a");
    await store.writeBlob(blob);
    await writer.uploaded(blob);
    await writer.holdAll();
    const [tag = ""] = store.tagsOf("hold-");
    return { writer, blob, tag };
  }

  test("without a generation is deleted after seven days, to the second", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const { tag } = await held(store, publisher);
    const since = generationTime(tag.slice("hold-".length, -"-0".length));
    publisher.host.time = since + 7 * DAY - 1;
    expect((await sweep(publisher)).deleted).toEqual([]);
    publisher.host.time++;
    expect((await sweep(publisher)).deleted).toHaveLength(1);
  });

  test("stays while its generation is there, whatever the list says of that", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const { writer, blob } = await held(store, publisher);
    const record = { ...testEntry("a").line };
    const result = await writer.commit(
      { time: "", tool: "", source: "paths", roots: {}, keys: [], content: blob.digest, entries: 1 },
      [record],
      [blob],
    );
    if (!("committed" in result)) throw new Error("not committed");
    store.hidden.add(segmentTag(result.committed));
    publisher.host.time += 30 * DAY;
    expect((await sweep(publisher)).deleted).toEqual([]);
    store.collect();
    expect(store.blobs.has(blob.digest)).toBe(true);
  });

  test("of a dead generation goes with it, whatever its age", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const name = generationName(publisher.host.time, "0123456789abcdef");
    const { tag } = await held(store, publisher);
    const manifest = store.manifests.get(store.tags.get(tag) as Digest)?.bytes as Uint8Array;
    await store.writeManifest(holdTag(name, 0), "", manifest);
    const since = publisher.host.time;
    await store.writeManifest(deadTag(segmentTag(name), since), "", manifest);
    publisher.host.time += 26 * HOUR;
    await sweep(publisher);
    expect(store.tagsOf("hold-").concat(store.tagsOf("dead-"))).toEqual([]);
  });
});

/** Clocks that are wrong: this machine's, or the registry's, which may be a stranger's. */
import { describe, expect, test } from "bun:test";
import { generationTime, parseTag } from "../../../src/cache/tags.ts";
import { collectGarbage } from "../../../src/gc/gc.ts";
import type { Store } from "../../../src/oci/store.ts";
import { pin } from "../../../src/pins/pin.ts";
import { unpin } from "../../../src/pins/unpin.ts";
import { endGenerations, sweep } from "../../../src/protocol/end.ts";
import { GenerationWriter } from "../../../src/protocol/generation.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import {
  commitNames,
  party,
  TestHost,
  type TestParty,
  testEntry,
  testRecord,
} from "../../support/protocol.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const YEAR = 365 * DAY;
const NOW = Date.UTC(2026, 5, 1, 12);
const POLICY = { retentionMs: 30 * DAY, keepLast: 1, keepBranches: [], dropBranches: [] };

/** A machine whose clock is off by `ours`, at a registry whose clock is off by `theirs`; undefined: it tells nothing. */
function machine(store: Store, ours: number, theirs: number | undefined, now = NOW): TestParty {
  const own = party(store, new TestHost(now + ours, ours + (theirs ?? 7)));
  const clockAheadMs = () => (theirs === undefined ? undefined : now + theirs - own.host.now());
  const withClock = new Proxy(store, {
    get(target, key) {
      if (key === "clockAheadMs") return clockAheadMs;
      const value = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  return { ...own, store: withClock };
}

describe("the name of a generation", () => {
  test.each<[string, number, number | undefined, number]>([
    ["is by our clock, where the registry tells nothing", 5 * HOUR, undefined, 5 * HOUR],
    ["is by our clock, half an hour ahead of the registry's", HOUR / 2, 0, HOUR / 2],
    ["is by our clock, half an hour behind the registry's", -HOUR / 2, 0, -HOUR / 2],
    ["is by the registry's clock, a second further behind ours", HOUR / 2 + 1000, 0, 0],
    ["is by the registry's clock, years behind ours", 10 * YEAR, 0, 0],
    ["is by the registry's clock, years ahead of ours", -10 * YEAR, 0, 0],
  ])("%s", async (_, ours, theirs, off) => {
    using publisher = machine(new MemoryStore(), ours, theirs);
    const name = await commitNames(publisher, ["a"]);
    expect(generationTime(name) - NOW).toBe(off);
  });

  test.each<[string, number, number]>([
    ["a second later than one that is named now", 0, 1000],
    ["a second later than one that is named two hours ahead", 2 * HOUR, 2 * HOUR + 1000],
    ["a second later than one that is named six days ahead", 6 * DAY, 6 * DAY + 1000],
    ["of now, after one that is named eight days ahead", 8 * DAY, 0],
    ["of now, after one that is named years ahead", 10 * YEAR, 0],
    ["of now, after one that is named a day behind", -DAY, 0],
  ])("is %s", async (_, before, off) => {
    const store = new MemoryStore();
    using earlier = machine(store, before, undefined);
    using later = machine(store, 0, undefined);
    const after = await commitNames(earlier, ["a"]);
    const { line, blob } = testEntry("a");
    const writer = new GenerationWriter(later, {}, after);
    const outcome = await writer.commit(testRecord([line], later.host), [line], [blob]);
    expect("committed" in outcome && generationTime(outcome.committed) - NOW).toBe(off);
    const isTold = later.warnings.some((text) =>
      text.includes("is named far ahead of now, 2026-06-01 12:00:00 UTC"),
    );
    expect(isTold).toBe(before > 7 * DAY);
  });

  test("a difference is told once, with both times and what it means", async () => {
    using publisher = machine(new MemoryStore(), -3 * HOUR, 0);
    await commitNames(publisher, ["a"]);
    await commitNames(publisher, ["b"]);
    expect(publisher.warnings).toEqual([
      "the clock of this machine says 2026-06-01 09:00:00 UTC, that of memory 2026-06-01 12:00:00 UTC: what is published is named by the registry's, and gc goes by the earlier. Set the clock that is wrong",
    ]);
  });
});

/** Generations of one branch, of so many days ago by a right clock, and a publish of bare paths of each day. */
async function cacheOf(days: readonly number[]): Promise<MemoryStore> {
  const store = new MemoryStore();
  for (const age of days) {
    using publisher = party(store, new TestHost(NOW - age * DAY, age));
    await commitNames(publisher, [`main-${age}`], { source: "repo main", branch: "main", selection: "all" });
    publisher.host.time += 60_000;
    await commitNames(publisher, [`paths-${age}`]);
  }
  return store;
}

const ending = async (context: TestParty, dryRun: boolean): Promise<number> => {
  const { decisions } = await collectGarbage(context, POLICY, { dryRun });
  return decisions.filter(({ ends }) => ends).length;
};
const tags = async (store: Store, kind: string) =>
  (await store.listTags()).filter((tag) => parseTag(tag)?.kind === kind);

describe("gc", () => {
  const AGES = [40, 29, 20, 2];

  test.each<[string, number, number | undefined, number]>([
    ["with right clocks ends what is over", 0, 0, 2],
    ["of an hour ahead, at a registry that tells", HOUR, 0, 2],
    ["20 hours ahead ends no more", 20 * HOUR, 0, 2],
    ["at a registry that is 20 hours ahead ends no more", 0, 20 * HOUR, 2],
    ["20 hours behind ends no more", -20 * HOUR, 0, 2],
    ["at a registry that is 20 hours behind ends no more", 0, -20 * HOUR, 2],
  ])("%s", async (_, ours, theirs, expected) => {
    const store = await cacheOf(AGES);
    using collector = machine(store, ours, theirs);
    expect(await ending(collector, false)).toBe(expected);
    expect((await tags(store, "dead")).length).toBe(expected);
  });

  test.each<[string, number, number]>([
    ["our clock is two days ahead", 2 * DAY, 0],
    ["our clock is years ahead", 10 * YEAR, 0],
    ["our clock is years behind", -10 * YEAR, 0],
    ["the registry lies years ahead", 0, 10 * YEAR],
    ["the registry lies years behind", 0, -5 * YEAR],
  ])("changes nothing where %s, and plans by the earlier clock", async (_, ours, theirs) => {
    const store = await cacheOf(AGES);
    const before = (await store.listTags()).sort();
    using collector = machine(store, ours, theirs);
    await expect(collectGarbage(collector, POLICY)).rejects.toMatchObject({
      code: "clock",
      message: expect.stringContaining("nothing was ended or deleted"),
      hint: expect.stringContaining("Set the clock"),
    });
    expect((await store.listTags()).sort()).toEqual(before);
    expect(await ending(collector, true)).toBe(ours < 0 || theirs < 0 ? 0 : 2);
  });

  test("what ended is not deleted early by whichever of the two clocks is wrong", async () => {
    for (const [ours, theirs] of [
      [20 * HOUR, 0],
      [-20 * HOUR, 0],
      [0, 20 * HOUR],
      [0, -20 * HOUR],
    ] as const) {
      const store = await cacheOf([40, 2]);
      using first = machine(store, ours, theirs);
      await collectGarbage(first, POLICY);
      expect((await tags(store, "dead")).length).toBe(2);
      // Who deletes has a right clock, and the registry's has been set.
      using second = machine(store, 0, 0, NOW + 25 * HOUR);
      expect((await sweep(second)).deleted).toEqual([]);
      using third = machine(store, 0, 0, NOW + 47 * HOUR);
      expect((await sweep(third)).deleted.length).toBe(2);
    }
  });

  test("nor by a clock that is ahead when it deletes", async () => {
    const store = await cacheOf([40, 2]);
    using first = machine(store, 0, 0);
    await collectGarbage(first, POLICY);
    for (const [ours, theirs] of [
      [20 * HOUR, 0],
      [0, 20 * HOUR],
    ] as const) {
      using second = machine(store, ours, theirs, NOW + 10 * HOUR);
      expect((await sweep(second)).deleted).toEqual([]);
    }
    using far = machine(store, 2 * DAY, 0, NOW + 10 * HOUR);
    await expect(sweep(far)).rejects.toMatchObject({ code: "clock" });
  });

  test("a generation of an hour ago is not ended by a clock a day ahead", async () => {
    const store = new MemoryStore();
    using publisher = machine(store, 0, 0, NOW - HOUR);
    const name = await commitNames(publisher, ["a"]);
    for (const [ours, theirs] of [
      [23.5 * HOUR, 0],
      [0, 23.5 * HOUR],
    ] as const) {
      using collector = machine(store, ours, theirs);
      await refresh(collector, { list: true });
      expect(await endGenerations(collector, [name])).toEqual([]);
    }
  });
});

test("a pin is not unpinned by halves where clocks are far apart", async () => {
  const store = new MemoryStore();
  using person = machine(store, 0, 0);
  await commitNames(person, ["a"]);
  const terms = { keepRevisions: 1 };
  const what = (await testEntry("a").line).storeHash;
  await pin(person, "kept", { what }, terms, { tool: "test", resolveLink: async (path) => path });
  const before = (await store.listTags()).sort();
  using other = machine(store, 3 * DAY, 0);
  await expect(unpin(other, "kept", "test")).rejects.toMatchObject({ code: "clock" });
  expect((await store.listTags()).sort()).toEqual(before);
});

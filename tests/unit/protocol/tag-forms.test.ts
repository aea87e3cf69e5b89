/** Caches of earlier versions, whose tags have `T` and `Z`, and mixed ones: every step of the protocol on both forms. */
import { describe, expect, test } from "bun:test";
import { generationId, ROOT_TAG, segmentTag } from "../../../src/cache/tags.ts";
import { copyCache } from "../../../src/copy/copy.ts";
import { collectGarbage } from "../../../src/gc/gc.ts";
import { knownGenerations } from "../../../src/inspect/known.ts";
import type { Store } from "../../../src/oci/store.ts";
import { endGenerations, sweep } from "../../../src/protocol/end.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { GenerationWriter } from "../../../src/protocol/generation.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { verify } from "../../../src/verify/verify.ts";
import { asEarlierVersion, withCapitals } from "../../support/earlier-version.ts";
import { DAY } from "../../support/gc-stretch.ts";
import { MemoryStore, withMethods } from "../../support/memory-store.ts";
import {
  commitNames,
  TestHost as Host,
  party,
  type TestHost,
  testEntry,
  viewOf,
} from "../../support/protocol.ts";

const NAMES = ["a", "b", "c", "d"];
const HOUR = 3_600_000;

async function seen(store: Store, host?: TestHost): Promise<string[]> {
  using reader = party(store, host);
  await refresh(reader, { list: true });
  return viewOf(reader, NAMES);
}

/** An earlier version's cache of two generations, and one of ours later on the same day. */
async function mixed(store: MemoryStore, host: Host): Promise<[string, string, string]> {
  using earlier = party(store, host);
  const first = await commitNames(earlier, ["a"], { source: "r#main" });
  host.time += HOUR;
  const second = await commitNames(earlier, ["b"], { source: "r#main" });
  await fold(earlier);
  asEarlierVersion(store);
  host.time += HOUR;
  using ours = party(store, host);
  const third = await commitNames(ours, ["c"], { source: "r#main" });
  return [first, second, third];
}

describe("a cache with both forms", () => {
  test("is written in lower case, and read whole, in the order of time", async () => {
    const store = new MemoryStore();
    const host = new Host(Date.UTC(2026, 4, 5, 10));
    const names = await mixed(store, host);
    expect(store.tagsOf("seg-")).toEqual([
      ...[names[0], names[1]].map((name) => `seg-${withCapitals(name)}`),
      `seg-${names[2]}`,
    ]);
    using reader = party(store, host);
    store.calls.length = 0;
    await refresh(reader, { list: true });
    expect(viewOf(reader, NAMES)).toEqual(["a", "b", "c"]);
    expect(reader.database.view.generations().map(({ name }) => name)).toEqual(names);
    // The earlier version's root counts, and a tag is asked for in the form that is listed.
    expect(store.calls.filter((call) => call.includes("seg-"))).toEqual([`readManifest seg-${names[2]}`]);
    await fold(reader);
    expect(await seen(store, host)).toEqual(["a", "b", "c"]);
  });

  test("is asked for in both before a generation counts as gone", async () => {
    const store = new MemoryStore();
    const host = new Host(Date.UTC(2026, 4, 5, 10));
    const [first] = await mixed(store, host);
    for (const tag of store.tagsOf("seg-")) store.hidden.add(tag);
    // The root covers the first two, which the list lacks.
    expect(await seen(store, host)).toEqual(["a", "b"]);
    await store.deleteManifest(store.tags.get(`seg-${withCapitals(first)}`) as never);
    expect(await seen(store, host)).toEqual(["b"]);
  });

  test("ends by a tag that the version which wrote the generation knows", async () => {
    const store = new MemoryStore();
    const host = new Host(Date.UTC(2026, 4, 5, 10));
    const [first, , third] = await mixed(store, host);
    using gc = party(store, host);
    host.time += 2 * DAY;
    await refresh(gc, { list: true });
    await endGenerations(gc, [first, third]);
    const dead = store.tagsOf("dead-");
    expect(dead.map((tag) => tag.slice(-16)).sort()).toEqual([first, third].map(generationId).sort());
    expect(dead.filter((tag) => /T\d{6}Z/.test(tag)).map((tag) => tag.slice(-16))).toEqual([
      generationId(first),
    ]);
    expect(await seen(store, host)).toEqual(["b"]);
    host.time += 2 * DAY;
    expect((await sweep(gc)).gone.toSorted()).toEqual([first, third].map(generationId).sort());
    expect(store.tagsOf("dead-")).toEqual([]);
    expect(store.tagsOf("seg-")).toHaveLength(1);
  });

  test.each([
    ["an earlier dead tag", withCapitals, (tag: string) => tag],
    ["a later dead tag", (tag: string) => tag, withCapitals],
  ])("pairs %s with the segment by its id, and both forms of a segment", async (_, dead, segment) => {
    const store = new MemoryStore();
    using one = party(store, new Host());
    const name = await commitNames(one, ["a"]);
    const digest = store.tags.get(segmentTag(name)) as never;
    store.tags.set(segment(segmentTag(name)), digest);
    store.tags.set(dead(`dead-20260103t000000z-${generationId(name)}`), digest);
    expect(await seen(store)).toEqual([]);
    expect((await knownGenerations(one)).ended.map((ended) => ended.name)).toEqual([name]);
    one.host.time += 9 * DAY;
    await sweep(one);
    expect([...store.tags.keys()]).toEqual([]);
  });

  test("keeps a hold of an earlier version whose segment the list lacks (R7)", async () => {
    const store = new MemoryStore();
    using one = party(store, new Host());
    const writer = new GenerationWriter(one, {});
    const { line, blob } = testEntry("a");
    await store.writeBlob(blob);
    await writer.uploaded(blob);
    await writer.holdAll();
    const record = {
      time: "",
      tool: "t",
      source: "s",
      roots: {},
      keys: [],
      content: blob.digest,
      entries: 1,
    };
    await writer.commit(record, [line], [blob]);
    asEarlierVersion(store);
    const [segment = ""] = store.tagsOf("seg-");
    store.hidden.add(segment);
    one.host.time += 10 * DAY;
    await sweep(one);
    expect(store.tagsOf("hold-")).toHaveLength(1);
    store.hidden.clear();
    await store.deleteManifest(store.tags.get(segment) as never);
    await sweep(one);
    expect(store.tagsOf("hold-")).toEqual([]);
  });

  test("goes through gc, verify and copy, which keeps each tag as it is", async () => {
    const store = new MemoryStore();
    const host = new Host(Date.UTC(2026, 4, 5, 10));
    const [first, second, third] = await mixed(store, host);
    host.time += 40 * DAY;
    using machine = party(store, host);
    const { decisions } = await collectGarbage(
      machine,
      { retentionMs: 30 * DAY, keepLast: 1, keepBranches: [], dropBranches: [] },
      { dryRun: true },
    );
    // The newest of the three is the one of ours: an upper-case letter comes before a lower-case one.
    expect(decisions.map(({ name, ends }) => [name, ends])).toEqual([
      [first, true],
      [second, true],
      [third, false],
    ]);
    const { findings } = await verify({ ...machine, upstreams: [], keys: [] } as never);
    expect(findings.map(({ kind }) => kind)).toEqual(["root-behind"]);
    const to = new MemoryStore();
    using copier = party(to, host);
    const progress = { planned() {}, moved() {} };
    const report = await copyCache({ ...copier, source: store, progress });
    expect(report.copied.toSorted()).toEqual([first, second, third].sort());
    for (const tag of store.tagsOf("seg-")) expect(to.tags.get(tag)).toBe(store.tags.get(tag) as never);
    expect(to.tagsOf("seg-")).toEqual(store.tagsOf("seg-"));
    expect((await copyCache({ ...copier, source: store, progress })).present).toBe(3);
    const one = withCapitals(first);
    expect((await copyCache({ ...copier, source: store, progress }, [one])).present).toBe(1);
  });
});

test("a registry that keeps tags in lower case has our caches, and those of earlier versions", async () => {
  const store = new MemoryStore();
  /** As Gitea and Forgejo do. */
  const lowering = withMethods(store, {
    readManifest: (reference, options) => store.readManifest(reference.toLowerCase(), options),
    statManifest: (reference) => store.statManifest(reference.toLowerCase()),
    writeManifest: (reference, type, bytes) => store.writeManifest(reference.toLowerCase(), type, bytes),
  });
  const host = new Host(Date.UTC(2026, 4, 5, 10));
  using publisher = party(lowering, host);
  await commitNames(publisher, ["a"]);
  await fold(publisher);
  expect(await seen(lowering, host)).toEqual(["a"]);
  const earlier = new MemoryStore();
  await mixed(earlier, host);
  using copier = party(lowering, host);
  const report = await copyCache({ ...copier, source: earlier, progress: { planned() {}, moved() {} } });
  expect(report.copied).toHaveLength(3);
  expect(await seen(lowering, host)).toEqual(["a", "b", "c"]);
  expect([...store.tags.keys()].filter((tag) => tag !== tag.toLowerCase())).toEqual([]);
  expect(store.tags.has(ROOT_TAG)).toBe(true);
});

import { describe, expect, test } from "bun:test";
import { generationId } from "../../../src/cache/tags.ts";
import { collectGarbage } from "../../../src/gc/gc.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { namedDigests } from "../../support/audit.ts";
import { DAY, HOUR, MAIN_LINE, STRETCH_POLICY, Stretch } from "../../support/gc-stretch.ts";
import { MemoryStore, withMethods } from "../../support/memory-store.ts";
import { commitNames, party, testEntry, viewOf } from "../../support/protocol.ts";
import { propertyParameters } from "../../support/seed.ts";

const START = Date.UTC(2026, 0, 1);
const WEEKS = 4;

const writes = (store: MemoryStore) => store.calls.filter((call) => /^(write|delete)/.test(call));

class Killed extends Error {}

describe("gc over weeks", () => {
  test("keeps what the policy promises; storage is what live generations name, and tags stay bounded", async () => {
    const store = new MemoryStore();
    using stretch = new Stretch(store, START);
    const tags: number[] = [];
    await stretch.run(7 * WEEKS, async () => {
      await stretch.collect();
      tags.push(store.tags.size);
    });
    // What ended last is deleted by a run a day later.
    stretch.host.time += 3 * HOUR;
    await stretch.collect();
    expect(await stretch.alive()).toEqual(stretch.promised().sort());
    stretch.host.time += 27 * HOUR;
    await collectGarbage(stretch.collector, { ...STRETCH_POLICY, retentionMs: 60 * DAY });
    expect(store.tagsOf("dead-")).toEqual([]);
    expect(store.tagsOf("seg-").length).toBe((await stretch.alive()).length);
    // Four lines a day for the retention, the weeks in between two runs, and what waits for its deletion.
    expect(Math.max(...tags)).toBeLessThan(4 * (5 + 7 + 7) + 30);

    for (const digest of store.manifests.keys())
      if (![...store.tags.values()].includes(digest)) store.manifests.delete(digest);
    store.collect();
    await stretch.check();
    const named = await namedDigests(stretch.store);
    expect([...store.blobs.keys()].filter((digest) => !named.has(digest))).toEqual([]);
    using reader = party(store);
    await refresh(reader, { list: true });
    expect(
      viewOf(reader, ["common-x86_64-linux", "day-0-main-x86_64-linux", "day-3-pr-7-x86_64-linux"]),
    ).toEqual(["common-x86_64-linux", "day-3-pr-7-x86_64-linux"]);
  });

  test("killed at any request of any run, the next run goes on", async () => {
    const { seed } = propertyParameters();
    for (let round = 0; round < 12; round++) {
      const store = new MemoryStore();
      using stretch = new Stretch(store, START);
      let draw = (seed >>> 0) + round * 7919;
      const killed = async () => {
        draw = (Math.imul(draw, 1103515245) + 12345) >>> 0;
        let left = 1 + ((draw >>> 8) % 160);
        store.before = () => {
          if (--left <= 0) throw new Killed();
        };
        await stretch.collect().catch((error) => {
          if (!(error instanceof Killed)) throw error;
        });
        store.before = () => {};
        await stretch.check();
      };
      await stretch.run(14, async () => {
        await killed();
        stretch.host.time += 27 * HOUR;
        await killed();
      });
      await stretch.collect();
      stretch.host.time += 27 * HOUR;
      await stretch.collect({ ...STRETCH_POLICY, retentionMs: 60 * DAY });
      expect(store.tagsOf("dead-")).toEqual([]);
      await stretch.check();
    }
  }, 60_000);
});

describe("gc", () => {
  test("in a dry run writes nothing, and says what the run itself then does", async () => {
    const store = new MemoryStore();
    using stretch = new Stretch(store, START);
    await stretch.run(6);
    stretch.host.time += 20 * DAY;
    await stretch.publish(30, "main", "x86_64-linux");
    const before = writes(store).length;
    const tags = new Map(store.tags);
    const dry = await collectGarbage(stretch.collector, STRETCH_POLICY, { dryRun: true });
    expect(writes(store).length).toBe(before);
    expect(store.tags).toEqual(tags);
    expect(dry.freed).toBeUndefined();
    const real = await stretch.collect();
    expect(real.decisions).toEqual(dry.decisions);
    expect(real.sizes).toEqual(dry.sizes);
    expect(store.tagsOf("dead-").length).toBe(dry.decisions.filter(({ ends }) => ends).length);
  });

  test("counts bytes before and after, shared ones once, by source and output", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const root = (name: string) => ({ roots: { default: testPath(name) } });
    const old = await commitNames(publisher, ["a", "shared"], { ...MAIN_LINE, ...root("a") });
    publisher.host.time += 20 * DAY;
    await commitNames(publisher, ["b", "shared"], { ...MAIN_LINE, ...root("b") });
    publisher.host.time += HOUR;
    await commitNames(publisher, ["c", "shared"], { ...MAIN_LINE, source: "repo next", ...root("c") });
    publisher.host.time += 20 * DAY;
    const { sizes, decisions } = await collectGarbage(publisher, STRETCH_POLICY);
    const size = (...names: string[]) => names.reduce((sum, name) => sum + testEntry(name).blob.size, 0);
    const index = (name: string) => {
      const { layers } = JSON.parse(
        new TextDecoder().decode(store.manifests.get(store.tags.get(`seg-${name}`) as never)?.bytes),
      );
      return layers[0].size as number;
    };
    const [first, second, third] = decisions.map(({ name }) => index(name)) as [number, number, number];
    expect(decisions.map(({ name, ends }) => [name === old, ends])).toEqual([
      [true, true],
      [false, false],
      [false, false],
    ]);
    expect(sizes.before).toBe(size("a", "b", "c", "shared") + first + second + third);
    expect(sizes.after).toBe(size("b", "c", "shared") + second + third);
    expect(sizes.stored).toBe(sizes.before);
    expect(sizes.sources.find(({ source }) => source === "repo main")).toEqual({
      source: "repo main",
      system: "x86_64-linux",
      selection: "packages",
      generations: 2,
      staying: 1,
      before: size("a", "b", "shared") + first + second,
      after: size("b", "shared") + second,
      alone: size("b") + second,
    });
    expect(sizes.outputs).toEqual([
      { source: "repo main", output: "default", before: size("a", "b"), after: size("b") },
      { source: "repo next", output: "default", before: size("c"), after: size("c") },
    ]);
    publisher.host.time += 27 * HOUR;
    const { freed } = await collectGarbage(publisher, STRETCH_POLICY);
    expect(freed).toEqual({ gone: 1, bytes: size("a") + first, waiting: 0, refused: [] });
  });

  test("while a publish relies on what ends: its generation is complete, whenever it commits", async () => {
    // At each of gc's requests in turn.
    for (let at = 1; ; at++) {
      const store = new MemoryStore();
      using publisher = party(store);
      using collector = party(store, publisher.host);
      await commitNames(publisher, ["a", "b"], MAIN_LINE);
      publisher.host.time += 20 * DAY;
      await commitNames(publisher, ["b"], MAIN_LINE);
      publisher.host.time += DAY * 2;
      let left = at;
      let published: string | undefined;
      store.before = async () => {
        if (--left !== 0) return;
        // It finds "a" in the generation that is ending, and names its blob anew.
        published = await commitNames(publisher, ["a"], { ...MAIN_LINE, source: "repo next" });
      };
      await collectGarbage(collector, STRETCH_POLICY);
      store.before = () => {};
      if (published === undefined) {
        expect(at).toBeGreaterThan(10);
        break;
      }
      publisher.host.time += 27 * HOUR;
      await collectGarbage(collector, STRETCH_POLICY);
      store.collect();
      using reader = party(store);
      await refresh(reader, { list: true });
      expect(viewOf(reader, ["a", "b"])).toEqual(["a", "b"]);
      for (const name of ["a", "b"]) expect(store.blobs.has(testEntry(name).blob.digest)).toBe(true);
    }
  });

  test("at a registry that refuses deletions hides what ended, asks once a run, and says why", async () => {
    const store = new MemoryStore();
    let asked = 0;
    const refusing = withMethods(store, {
      deleteManifest: async () => {
        asked++;
        return { refused: "405 here", everything: true };
      },
    });
    using publisher = party(store);
    for (const name of ["a", "b", "c"]) {
      await commitNames(publisher, [name], MAIN_LINE);
      publisher.host.time += 40 * DAY;
    }
    const collector = { ...publisher, store: refusing };
    const first = await collectGarbage(collector, STRETCH_POLICY);
    expect(first.freed?.refused).toEqual([]);
    expect(store.tagsOf("dead-").length).toBe(2);
    publisher.host.time += 27 * HOUR;
    const second = await collectGarbage(collector, STRETCH_POLICY);
    expect(asked).toBe(1);
    expect(second.freed?.refused.map(({ reason }) => reason)).toEqual(["405 here", "405 here"]);
    expect(second.freed?.gone).toBe(0);
    using reader = party(store);
    await refresh(reader, { list: true });
    expect(viewOf(reader, ["a", "b", "c"])).toEqual(["c"]);
    // Where deletions are allowed later, the next run makes up for it.
    const third = await collectGarbage(publisher, STRETCH_POLICY);
    expect(third.freed?.gone).toBe(2);
    expect(store.tagsOf("dead-")).toEqual([]);
  });

  test("one manifest that must stay does not keep the others", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const names: string[] = [];
    for (const name of ["a", "b", "c"]) {
      names.push(await commitNames(publisher, [name], MAIN_LINE));
      publisher.host.time += 40 * DAY;
    }
    await collectGarbage(publisher, STRETCH_POLICY);
    publisher.host.time += 27 * HOUR;
    const popular = store.tags.get(`seg-${names[0]}`);
    const collector = {
      ...publisher,
      store: withMethods(store, {
        deleteManifest: async (digest) =>
          digest === popular ? { refused: "too popular", everything: false } : store.deleteManifest(digest),
      }),
    };
    const { freed } = await collectGarbage(collector, STRETCH_POLICY);
    expect(freed?.refused).toEqual([{ tag: `seg-${names[0]}`, reason: "too popular" }]);
    expect(store.tagsOf("dead-").map((tag) => tag.slice(-16))).toEqual([generationId(names[0] as string)]);
  });
});

function testPath(name: string): string {
  return /^StorePath: (.*)$/m.exec(testEntry(name).line.narinfo)?.[1] ?? "";
}

test("a branch to keep that is not there ends nothing, where it would leave none", async () => {
  const store = new MemoryStore();
  using stretch = new Stretch(store, START);
  await stretch.run(3, async () => {});
  stretch.host.time += 90 * DAY;
  const [tags, written] = [store.tags.size, writes(store).length];
  const collect = (keepBranches: string[]) =>
    collectGarbage(stretch.collector, { ...STRETCH_POLICY, keepBranches });
  await expect(collect(["mian"])).rejects.toMatchObject({
    code: "absent",
    message: '--keep-branch "mian": nothing in the cache is of such a branch',
  });
  expect(store.tags.size).toBe(tags);
  expect(writes(store).length).toBe(written);
  expect((await collect(["main", "mian"])).decisions.some(({ ends }) => ends)).toBe(true);
});

import { describe, expect, test } from "bun:test";
import { segmentTag } from "../../../src/cache/tags.ts";
import { gcPolicy } from "../../../src/config.ts";
import { explain, isHeld, type Why } from "../../../src/inspect/why.ts";
import { adoptV1 } from "../../../src/protocol/adopt.ts";
import { endGenerations, sweep } from "../../../src/protocol/end.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { DAY, HOUR, MAIN_LINE } from "../../support/gc-stretch.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import {
  baseName,
  commitNames,
  commitPaths,
  party,
  storeHash,
  type TestParty,
} from "../../support/protocol.ts";
import { pathOf } from "../../support/publish.ts";
import { choices } from "../../support/seed-choices.ts";
import { indexLayer } from "../../support/segments.ts";
import { pushV1, v1Path } from "../../support/v1-cache.ts";

const explained = (context: TestParty, name: string): Promise<Why> =>
  explain(context, storeHash(name), gcPolicy({}));

const holders = ({ holders }: Why) => holders.map(({ name }) => name);

describe("a path that is held", () => {
  test("by which generations, through which root, and what gc makes of them", async () => {
    using context = party(new MemoryStore());
    const graph = {
      app: { references: ["lib"] },
      lib: { references: ["deep"] },
      deep: { references: ["wanted"] },
      tool: { references: ["app", "deep"] },
      wanted: {},
    };
    const roots = { "packages.app": pathOf("app"), "packages.tool": pathOf("tool"), odd: "no store path" };
    const old = await commitPaths(context, graph, { ...MAIN_LINE, roots });
    context.host.time += 40 * DAY;
    const newest = await commitPaths(context, graph, { ...MAIN_LINE, roots: { odd: pathOf("other") } });
    await fold(context);
    context.host.time += 2 * DAY;
    const why = await explained(context, "wanted");
    expect(why).toMatchObject({
      path: pathOf("wanted"),
      lastHolder: undefined,
      leftAt: undefined,
      unread: [],
    });
    expect(holders(why)).toEqual([newest, old]);
    expect(why.holders).toMatchObject([
      { ends: false, rule: "newest", root: undefined },
      {
        ...{ ends: true, rule: "age", reason: expect.stringContaining(segmentTag(newest)) },
        root: { output: "packages.tool", chain: ["tool", "deep", "wanted"].map(pathOf) },
      },
    ]);
    expect((await explained(context, "app")).holders[1]?.root).toEqual({
      output: "packages.app",
      chain: [pathOf("app")],
    });
  });

  test("is found in the right generations whatever was folded when", async () => {
    const { below, pick, random } = choices("why after folds");
    for (let round = 0; round < 15; round++) {
      using context = party(new MemoryStore());
      const names = ["a", "b", "c", "d", "e"];
      const held: [string, string[]][] = [];
      for (let n = 0; n < 1 + below(7); n++) {
        context.host.time += DAY;
        const some = pick(names, 1 + below(4));
        held.push([await commitNames(context, some, MAIN_LINE), some]);
        if (random() < 0.5) await fold(context);
      }
      for (const name of names) {
        const expected = held.filter(([, some]) => some.includes(name)).map(([generation]) => generation);
        expect(holders(await explained(context, name))).toEqual(expected.reverse());
      }
    }
  });

  test("asks only generations that may hold it, and those with the same lines once", async () => {
    const store = new MemoryStore();
    using context = party(store);
    const old = await commitNames(
      context,
      Array.from({ length: 50 }, (_, n) => `old-${n}`),
      MAIN_LINE,
    );
    await fold(context);
    const twins = [await commitNames(context, ["new"], MAIN_LINE)];
    context.host.time += DAY;
    twins.push(await commitNames(context, ["new"], MAIN_LINE));
    await fold(context);
    await explained(context, "new");
    store.calls.length = 0;
    expect(holders(await explained(context, "new"))).toEqual(twins.toReversed());
    expect(store.calls.filter((call) => call.startsWith("readManifest seg-"))).toEqual([
      `readManifest seg-${twins[0]}`,
    ]);
    expect(holders(await explained(context, "old-7"))).toEqual([old]);
  });

  test("a generation that cannot be read is told, and one with the same lines answers for it", async () => {
    const store = new MemoryStore();
    using context = party(store);
    const twins = [await commitNames(context, ["a"], MAIN_LINE)];
    context.host.time += DAY;
    twins.push(await commitNames(context, ["a"], { ...MAIN_LINE, revision: "another" }));
    const other = await commitNames(context, ["a", "b"], MAIN_LINE);
    await fold(context);
    for (const name of [twins[0], other]) store.blobs.delete(indexLayer(store, name as string));
    const why = await explained(context, "a");
    expect(holders(why).sort()).toEqual(twins.toSorted());
    expect(why.unread.toSorted()).toEqual([twins[0], other].toSorted() as string[]);
  });
});

test("a path in an index of nixcache-oci is held by that, until a generation adopts it", async () => {
  using context = party(new MemoryStore());
  await pushV1(context.store, [v1Path("old"), v1Path("other")]);
  const before = await explained(context, "old");
  expect(before).toMatchObject({ path: pathOf("old"), holders: [], unadopted: true, leftAt: undefined });
  expect([isHeld(before), isHeld(await explained(context, "never"))]).toEqual([true, false]);
  await commitNames(context, ["new"], MAIN_LINE);
  expect((await explained(context, "new")).unadopted).toBe(false);
  await adoptV1(context, []);
  const after = await explained(context, "old");
  expect(after).toMatchObject({ unadopted: false, holders: [{ record: { source: "nixcache-oci" } }] });
  expect(isHeld(after)).toBe(true);
});

describe("a path that is held no more", () => {
  /** Two generations with the path, ended an hour apart, and a younger one without it. */
  async function ended(context: TestParty): Promise<{ first: string; second: string; endings: number[] }> {
    const first = await commitNames(context, ["gone", "a"], MAIN_LINE);
    context.host.time += DAY;
    const second = await commitNames(context, ["gone", "b"], MAIN_LINE);
    context.host.time += 2 * DAY;
    await commitNames(context, ["a", "b"], MAIN_LINE);
    await refresh(context, { list: true });
    const endings: number[] = [];
    for (const name of [second, first]) {
      context.host.time += HOUR;
      endings.push(context.host.time);
      await endGenerations(context, [name]);
    }
    return { first, second, endings };
  }

  test("is known from the last that held it, as long as that is not deleted", async () => {
    const store = new MemoryStore();
    using context = party(store);
    const { first, second, endings } = await ended(context);
    // Two runs of gc may both have ended it: the first counts.
    const tag = `dead-20300101t000000z-${first.split("-")[1]}`;
    store.tags.set(tag, store.tags.get(`seg-${first}`) as never);
    using other = party(store, context.host);
    expect(await explained(other, "gone")).toEqual({
      ...{ path: pathOf("gone"), holders: [], leftAt: undefined, unadopted: false, unread: [] },
      lastHolder: { name: first, endedAt: Math.floor((endings[1] as number) / 1000) * 1000 },
    });
    store.blobs.delete(indexLayer(store, first));
    const why = await explained(other, "gone");
    expect([why.lastHolder?.name, why.unread]).toEqual([second, [first]]);
  });

  test("is known from this machine's index, for 35 days", async () => {
    const store = new MemoryStore();
    using context = party(store);
    const { endings } = await ended(context);
    context.host.time += 27 * HOUR;
    await sweep(context);
    expect(store.tagsOf("dead-")).toEqual([]);
    const nothing = { path: undefined, holders: [], lastHolder: undefined, unadopted: false, unread: [] };
    expect(await explained(context, "gone")).toEqual({ ...nothing, leftAt: endings[1] });
    using other = party(store, context.host);
    expect(await explained(other, "gone")).toEqual({ ...nothing, leftAt: undefined });
    context.host.time += 36 * DAY;
    await commitNames(context, ["c"], MAIN_LINE);
    expect((await explained(context, "gone")).leftAt).toBeUndefined();
  });

  test("or never was: nothing is known", async () => {
    using context = party(new MemoryStore());
    await commitNames(context, ["a"]);
    expect(await explained(context, "never")).toEqual({
      ...{
        path: undefined,
        holders: [],
        lastHolder: undefined,
        leftAt: undefined,
        unadopted: false,
        unread: [],
      },
    });
    expect(baseName("never")).toStartWith(storeHash("never"));
  });
});

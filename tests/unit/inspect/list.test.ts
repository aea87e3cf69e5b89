import { describe, expect, test } from "bun:test";
import { type ListedPath, type ListOptions, withList } from "../../../src/inspect/list.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { DAY, MAIN_LINE } from "../../support/gc-stretch.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitNames, commitPaths, party, type TestParty, testEntry } from "../../support/protocol.ts";
import { indexLayer } from "../../support/segments.ts";

async function list(context: TestParty, options: Partial<ListOptions> = {}) {
  const all = { text: "", order: "name", closures: false, holders: false, ...options } as const;
  return withList(context, all, async ({ totals, paths }) => ({ totals, paths: [...paths] }));
}

const named = (paths: readonly ListedPath[]) => paths.map(({ name }) => name);

describe("the order and the limit", () => {
  const PATHS = {
    app: { references: ["lib", "data", "elsewhere"], added: 3 },
    data: { added: 4 },
    lib: { references: ["data"], added: 2 },
    zed: { added: 1 },
  };

  test.each<[ListOptions["order"], string[]]>([
    ["name", ["app", "data", "lib", "zed"]],
    ["added", ["data", "app", "lib", "zed"]],
    ["closure", ["app", "lib", "data", "zed"]],
    ["size", ["app", "data", "lib", "zed"]],
  ])("by %s", async (order, expected) => {
    using context = party(new MemoryStore());
    await commitPaths(context, PATHS);
    expect(named((await list(context, { order })).paths)).toEqual(expected);
    const some = await list(context, { order, limit: 2 });
    expect(named(some.paths)).toEqual(expected.slice(0, 2));
    expect(some.totals.paths).toBe(4);
  });

  test("a search and its totals; closures also count what does not match, and what is elsewhere", async () => {
    using context = party(new MemoryStore());
    await commitPaths(context, PATHS);
    const { totals, paths } = await list(context, { text: "A P", closures: true });
    expect(totals).toEqual({ paths: 1, narSize: 100, fileSize: testEntry("app").blob.size });
    const fileSize = ["app", "lib", "data"].reduce((sum, name) => sum + testEntry(name).blob.size, 0);
    expect(paths).toMatchObject([
      { name: "app", added: 3, closure: { paths: 3, narSize: 300, fileSize, elsewhere: 1 } },
    ]);
  });
});

describe("which generations hold a path", () => {
  test("is read from each segment, whatever the root covers; equal ones are read once", async () => {
    const store = new MemoryStore();
    using context = party(store);
    const names: string[] = [];
    for (const paths of [["a", "b"], ["a"], ["a", "b"], ["c"]]) {
      context.host.time += DAY;
      names.push(await commitNames(context, paths, MAIN_LINE));
      if (names.length === 2) await fold(context);
    }
    const [first, second, third, fourth] = names;
    const before = store.calls.length;
    const { paths } = await list(context, { holders: true });
    expect(paths.map(({ name, generations }) => [name, generations])).toEqual([
      ["a", [third, second, first]],
      ["b", [third, first]],
      ["c", [fourth]],
    ] as never);
    const calls = store.calls.slice(before);
    expect(calls.filter((call) => call === `readManifest seg-${first}`)).toHaveLength(1);
  });

  test("a place of a path is right in bytes of eight and beyond", async () => {
    using context = party(new MemoryStore());
    const names = Array.from({ length: 20 }, (_, n) => `p-${String(n).padStart(2, "0")}`);
    const all = await commitNames(context, names, MAIN_LINE);
    context.host.time += DAY;
    const third = await commitNames(
      context,
      names.filter((_, n) => n % 3 === 1),
      MAIN_LINE,
    );
    const { paths } = await list(context, { holders: true });
    expect(paths.map(({ generations }) => generations)).toEqual(
      names.map((_, n) => (n % 3 === 1 ? [third, all] : [all])),
    );
  });

  test("a generation that cannot be read is left out with a warning; nothing is read for nothing", async () => {
    const store = new MemoryStore();
    using context = party(store);
    const first = await commitNames(context, ["a"], MAIN_LINE);
    context.host.time += DAY;
    const second = await commitNames(context, ["a", "b"], MAIN_LINE);
    await list(context);
    store.blobs.delete(indexLayer(store, second));
    const { paths } = await list(context, { holders: true, text: "a" });
    expect(paths.map(({ generations }) => generations)).toEqual([[first]]);
    expect(context.warnings.join()).toContain("what it holds is not known");
    const before = store.calls.length;
    await list(context, { holders: true, text: "nothing" });
    expect(store.calls.slice(before).filter((call) => call.startsWith("readBlob"))).toEqual([]);
  });
});

test("an empty cache has an empty list", async () => {
  using context = party(new MemoryStore());
  expect(await list(context)).toEqual({ totals: { paths: 0, narSize: 0, fileSize: 0 }, paths: [] });
});

test("a list that is stopped ends", async () => {
  using context = party(new MemoryStore());
  await commitNames(context, ["a"]);
  await list(context);
  const stopped = AbortSignal.abort(new Error("stopped"));
  await expect(list({ ...context, signal: stopped } as TestParty)).rejects.toThrow("stopped");
});

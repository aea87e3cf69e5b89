import { describe, expect, test } from "bun:test";
import { type Difference, diffGenerations } from "../../../src/inspect/diff.ts";
import { DAY, MAIN_LINE } from "../../support/gc-stretch.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitPaths, party, type TestEntryOptions, testEntry } from "../../support/protocol.ts";

type Paths = Readonly<Record<string, TestEntryOptions>>;

async function diff(before: Paths, after: Paths): Promise<Difference> {
  using context = party(new MemoryStore());
  const one = await commitPaths(context, before, MAIN_LINE);
  context.host.time += DAY;
  const other = await commitPaths(context, after, MAIN_LINE);
  return diffGenerations(context, one, other);
}

const names = (...list: string[]): Paths => Object.fromEntries(list.map((name) => [name, {}]));

describe("packages", () => {
  test.each<[string, string[], string[], (string | string[])[][]]>([
    ["nothing", ["a-1.0"], ["a-1.0"], []],
    ["another version", ["a-1.0", "b-1"], ["a-2.0", "b-1"], [["a", "changed", ["1.0"], ["2.0"], []]]],
    ["one more", ["a-1"], ["a-1", "b-2"], [["b", "added", [], ["2"], []]]],
    ["one less", ["a-1", "b-2"], ["a-1"], [["b", "removed", ["2"], [], []]]],
    ["a version less", ["a-1", "a-2"], ["a-2"], [["a", "changed", ["1"], [], ["2"]]]],
    [
      "outputs of one version",
      ["a-1-bin", "a-1"],
      ["a-2-bin", "a-2", "a-2-man"],
      [["a", "changed", ["1"], ["2"], []]],
    ],
    ["an output more", ["a-1"], ["a-1", "a-1-man"], [["a", "rebuilt", [], [], ["1"]]]],
    ["no version any more", ["a-1"], ["a"], [["a", "changed", ["1"], [""], []]]],
  ])("%s", async (_, before, after, expected) => {
    const { packages } = await diff(names(...before), names(...after));
    const found = packages.map((one) => [one.name, one.change, one.before, one.after, one.kept]);
    expect(found).toEqual(expected);
  });

  test("sizes are those of all paths of a package", async () => {
    const { packages } = await diff(names("a-1", "a-1-man"), names("a-2"));
    expect(packages).toMatchObject([{ sizeBefore: 200, sizeAfter: 100 }]);
  });
});

test("paths by name, and sums in which a NAR that two paths share counts once", async () => {
  const { before, after, added, removed } = await diff(
    { "a-1": {}, "b-1": {} },
    { "a-1": {}, "d-1": {}, "c-1": { content: "a-1" } },
  );
  expect([added, removed].map((some) => some.map(({ name }) => name))).toEqual([["c-1", "d-1"], ["b-1"]]);
  const size = (name: string) => testEntry(name).blob.size;
  expect(before.totals).toEqual({ paths: 2, narSize: 200, fileSize: size("a-1") + size("b-1") });
  expect(after.totals).toEqual({ paths: 3, narSize: 300, fileSize: size("a-1") + size("d-1") });
  expect(after.record).toMatchObject(MAIN_LINE);
});

test("of what was deleted there is nothing to compare", async () => {
  const store = new MemoryStore();
  using context = party(store);
  const name = await commitPaths(context, names("a-1"), MAIN_LINE);
  await store.deleteManifest(store.tags.get(`seg-${name}`) as never);
  await expect(diffGenerations(context, name, name)).rejects.toMatchObject({
    code: "absent",
    message: `seg-${name} of memory is not there any more`,
  });
});

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { referencesFirst } from "../../../src/nix/topological.ts";

const node = (path: string, ...references: string[]) => ({ path, references });
const order = (...nodes: { path: string; references: string[] }[]) =>
  referencesFirst(nodes).map(({ path }) => path);

describe("referencesFirst", () => {
  test.each<[string, { path: string; references: string[] }[], string[]]>([
    ["nothing", [], []],
    ["no references: by path", [node("c"), node("a"), node("b")], ["a", "b", "c"]],
    ["a chain", [node("a", "b"), node("b", "c"), node("c")], ["c", "b", "a"]],
    ["a self-reference", [node("a", "a")], ["a"]],
    ["a diamond", [node("a", "b", "c"), node("b", "d"), node("c", "d"), node("d")], ["d", "b", "c", "a"]],
    ["a reference named twice", [node("a", "b", "b"), node("b")], ["b", "a"]],
    ["the smallest that is ready", [node("a", "z"), node("b"), node("z")], ["b", "z", "a"]],
    ["bytewise, capitals first", [node("a"), node("B")], ["B", "a"]],
  ])("%s", (_, nodes, expected) => {
    expect(order(...nodes)).toEqual(expected);
  });

  test.each<[string, { path: string; references: string[] }[], string]>([
    ["twice the same path", [node("a"), node("a")], "a is listed twice"],
    ["a missing reference", [node("a", "b")], "a refers to b, which is not in the closure"],
    ["a cycle of two", [node("a", "b"), node("b", "a")], "the references form a cycle: a → b → a"],
    [
      "a cycle behind a tail",
      [node("t", "x"), node("x", "x", "y"), node("y", "x"), node("z")],
      "the references form a cycle: x → y → x",
    ],
  ])("%s is refused", (_, nodes, message) => {
    expect(() => order(...nodes)).toThrow(message);
  });

  // A graph without cycles: node number n refers to smaller numbers and perhaps to itself; names are shuffled.
  const graph = fc
    .array(fc.array(fc.nat(), { maxLength: 4 }), { maxLength: 60 })
    .chain((lists) =>
      fc.tuple(
        fc.constant(lists),
        fc.shuffledSubarray([...lists.keys()], { minLength: lists.length, maxLength: lists.length }),
      ),
    )
    .map(([lists, names]) =>
      lists.map((list, index) => ({
        path: `p${names[index]}`,
        references: [...new Set(list.map((value) => `p${names[value % (index + 1)]}`))],
      })),
    );

  test("property: a permutation in which references come first, whatever order was given", () => {
    fc.assert(
      fc.property(graph, fc.nat(), (nodes, turn) => {
        const sorted = referencesFirst(nodes);
        expect(new Set(sorted)).toEqual(new Set(nodes));
        expect(sorted.length).toBe(nodes.length);
        const at = new Map(sorted.map(({ path }, index) => [path, index]));
        for (const [index, { path, references }] of sorted.entries()) {
          for (const reference of references) {
            if (reference !== path) expect(at.get(reference) as number).toBeLessThan(index);
          }
        }
        const start = nodes.length === 0 ? 0 : turn % nodes.length;
        expect(referencesFirst([...nodes.slice(start), ...nodes.slice(0, start)])).toEqual(sorted);
      }),
    );
  });

  test("property: of the paths that are ready the smallest comes first", () => {
    fc.assert(
      fc.property(graph, (nodes) => {
        const done = new Set<string>();
        const left = new Map(nodes.map((item) => [item.path, item]));
        for (const { path } of referencesFirst(nodes)) {
          const ready = [...left.values()]
            .filter((item) => item.references.every((name) => name === item.path || done.has(name)))
            .map((item) => item.path)
            .sort();
          expect(path).toBe(ready[0] as string);
          done.add(path);
          left.delete(path);
        }
      }),
    );
  });

  test("100,000 paths in a chain: no recursion, no quadratic search", () => {
    const name = (index: number) => `p${String(index).padStart(6, "0")}`;
    const nodes = Array.from({ length: 100_000 }, (_, index) =>
      index === 99_999 ? node(name(index)) : node(name(index), name(index + 1)),
    );
    expect(referencesFirst(nodes)[0]?.path).toBe(name(99_999));
  });
});

import { describe, expect, test } from "bun:test";
import type { Generation } from "../../../src/cache/index-layer.ts";
import type { PublishRecord } from "../../../src/cache/record.ts";
import { deadTag, segmentTag } from "../../../src/cache/tags.ts";
import { NixcacheError } from "../../../src/errors.ts";
import type { KnownGenerations } from "../../../src/inspect/known.ts";
import { predecessors } from "../../../src/inspect/line.ts";
import { fullName, selectGeneration } from "../../../src/inspect/selector.ts";
import { TestHost, testRecord } from "../../support/protocol.ts";

/** The n-th, an hour after the one before. */
const name = (n: number) =>
  `20260101t${String(n).padStart(2, "0")}0000z-${String(n).padStart(2, "0")}23456789abcdef`;

function generation(n: number, record: Partial<PublishRecord> = {}): Generation {
  return { name: name(n), record: testRecord([], new TestHost(), record) };
}

const main = (n: number, more: Partial<PublishRecord> = {}) =>
  generation(n, { source: "r#main", branch: "main", system: "x86_64-linux", selection: "all", ...more });

const known: KnownGenerations = {
  live: [
    main(1),
    main(2, { system: "aarch64-linux" }),
    main(3),
    generation(4, { source: "r#next", branch: "next", selection: "all" }),
    generation(5, { source: "other#next", branch: "next", selection: "all" }),
    main(6, { partial: true }),
    main(7, { partial: true }),
    main(8),
    generation(9, { source: "pin:v1" }),
    generation(10, { source: "r#2026", branch: "2026" }),
    generation(11, { source: "r#a@b", branch: "a@b", system: "x86_64-linux" }),
    generation(12, { source: "r#7/merge", branch: "main" }),
    generation(13),
  ],
  ended: [{ name: name(20), endedAt: Date.UTC(2026, 1, 1) }],
};

describe("a generation is found by", () => {
  test.each<[string, string, number]>([
    ["its name", name(3), 3],
    ["its tag", segmentTag(name(3)), 3],
    ["its name as an earlier version told it", name(3).replace("t", "T").replace("z", "Z"), 3],
    ["the beginning of its name", "20260101t03", 3],
    ["the beginning of its name, with capitals", "20260101T03", 3],
    ["the beginning of its tag", "seg-20260101t03", 3],
    ["the name of an ended one", name(20), 20],
    ["its dead tag", deadTag(segmentTag(name(20)), 0), 20],
    ["the beginning of the name of an ended one", "20260101T20", 20],
    ["latest", "latest", 13],
    ["the number of a pull request, whose branch is called main", "7/merge", 12],
    ["a branch", "main", 8],
    ["a source", "r#next", 4],
    ["a pin", "pin:v1", 9],
    ["a branch and a system", "main@aarch64-linux", 2],
    ["a branch that looks like a year", "2026", 10],
    ["a branch with an @ in it", "a@b", 11],
    ["a branch with an @ in it, and a system", "a@b@x86_64-linux", 11],
    ["no step back", "main~0", 8],
    ["a step back in its line, past the parts of its run", "main~1", 3],
    ["two steps back", "main~2", 1],
    ["a step back from a part", `${name(7)}~1`, 6],
    ["a step back from the first part", `${name(6)}~1`, 3],
    ["a step back from the beginning of a name", "20260101t08~1", 3],
  ])("%s", (_, selector, expected) => {
    expect(selectGeneration(selector, known)).toBe(name(expected));
  });
});

describe("nothing is found by", () => {
  test.each<[string, string, string, RegExp]>([
    ["a name that nobody has", name(30), "absent", /no generation is called "20260101t300000z.*14 others/],
    ["a word", "nonsense", "absent", /"nonsense"/],
    ["the empty text", "", "absent", /""/],
    ["a step alone", "~1", "absent", /"~1"/],
    ["another branch's system", "next@armv7l-linux", "absent", /"next@armv7l-linux"/],
    ["the tag of a hold", `hold-${name(3)}-1`, "absent", /hold-/],
    ["the root's tag", "nixcache-index", "absent", /nixcache-index/],
    ["more steps than there are", "main~3", "absent", /are 2 before it, expected 3/],
    ["a step back from one that stands alone", "latest~1", "absent", /are 0 before it, expected 1/],
    ["a step back from an ended one", `${name(20)}~1`, "absent", /has ended/],
    [
      "the beginning of many names",
      "20260101",
      "usage",
      /could be 14 generations: "20260101t20.* and 9 more/,
    ],
    ["a branch of two sources", "next", "usage", /could be 2 sources: "other#next", "r#next"/],
    ["what would drive a terminal", "\u001b[31m", "absent", /\\u001b\[31m/],
  ])("%s", (_, selector, code, message) => {
    const thrown = (() => {
      try {
        return selectGeneration(selector, known);
      } catch (error) {
        return error;
      }
    })();
    expect(thrown).toBeInstanceOf(NixcacheError);
    const { code: found, message: text, hint } = thrown as NixcacheError;
    expect([found, hint !== undefined]).toEqual([code as typeof found, true]);
    expect(text).toMatch(message);
  });

  test("anything in an empty cache", () => {
    expect(() => selectGeneration("latest", { live: [], ended: [] })).toThrow("the cache has none");
  });
});

test("a whole name needs no list", () => {
  expect(fullName(name(1))).toBe(name(1));
  expect(fullName(`seg-${name(1)}`)).toBe(name(1));
  for (const text of ["latest", "2026", `dead-${name(1)}`, `hold-${name(1)}-1`, `${name(1)}~1`])
    expect(fullName(text)).toBeUndefined();
});

test("what a generation succeeds is the newest whole one of its line, for a part the newest of any kind", () => {
  const before = predecessors(known.live);
  const found = known.live.map((of) =>
    known.live.findIndex(({ name }) => name === before.get(of.name)?.name),
  );
  const none = -1;
  //                      1     2     3  4     5     6  7  8  9     10    11    12    13
  expect(found).toEqual([none, none, 0, none, none, 2, 5, 2, none, none, none, none, none]);
});

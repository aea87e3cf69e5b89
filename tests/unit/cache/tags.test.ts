import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  adoptedTag,
  deadTag,
  generationName,
  generationTime,
  holdTag,
  inFormOf,
  parseGenerationName,
  parseTag,
  ROOT_TAG,
  segmentTag,
  tagForms,
} from "../../../src/cache/tags.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { propertyParameters } from "../../support/seed.ts";

const NAME = "20261123t175346z-0123456789abcdef";

test("a name says when, in UTC", () => {
  const time = Date.UTC(2026, 10, 23, 17, 53, 46);
  expect(generationName(time + 999, "0123456789abcdef")).toBe(NAME);
  expect(generationTime(NAME)).toBe(time);
});

test("tags of ours are told from those of others", () => {
  expect(parseTag(segmentTag(NAME))).toEqual({ kind: "segment", name: NAME });
  const since = Date.UTC(2026, 11, 1);
  expect(deadTag(segmentTag(NAME), since)).toBe("dead-20261201t000000z-0123456789abcdef");
  expect(parseTag(deadTag(segmentTag(NAME), since))).toEqual({ kind: "dead", id: "0123456789abcdef", since });
  expect(parseTag(holdTag(NAME, 12))).toEqual({ kind: "hold", name: NAME, number: 12 });
  expect(parseTag(ROOT_TAG)).toEqual({ kind: "root" });
  const index = digestOf("index");
  expect(adoptedTag(index)).toMatch(/^adopted-[0-9a-f]{64}$/);
  expect(parseTag(adoptedTag(index))).toEqual({ kind: "adopted", index });
  for (const other of [
    "latest",
    "cache-index",
    `seg-${NAME}-1`,
    "seg-20261123T175346z-0123456789abcdef",
    "SEG-20261123T175346Z-0123456789ABCDEF",
    `hold-${NAME}`,
    "seg-",
    "adopted-0123",
    `adopted-${"A".repeat(64)}`,
    `x-seg-${NAME}`,
    "",
  ]) {
    expect(parseTag(other)).toBeUndefined();
  }
});

test("a tag that an earlier version wrote means the same", () => {
  const earlier = NAME.replace("t", "T").replace("z", "Z");
  expect(parseTag(`seg-${earlier}`)).toEqual({ kind: "segment", name: NAME });
  expect(parseTag(`hold-${earlier}-3`)).toEqual({ kind: "hold", name: NAME, number: 3 });
  expect(parseTag(`dead-${earlier}`)).toEqual(parseTag(`dead-${NAME}`) as never);
  expect(parseGenerationName(earlier)).toBe(NAME);
  expect(parseGenerationName(NAME)).toBe(NAME);
  expect(parseGenerationName(`seg-${NAME}`)).toBeUndefined();
  expect(tagForms(`seg-${NAME}`)).toEqual([`seg-${NAME}`, `seg-${earlier}`]);
  expect(tagForms(`hold-${earlier}-3`)).toEqual([`hold-${earlier}-3`, `hold-${NAME}-3`]);
  for (const only of [ROOT_TAG, adoptedTag(digestOf("index")), "cache-index"])
    expect(tagForms(only)).toEqual([only]);
  expect(inFormOf(`seg-${earlier}`, `hold-${NAME}-3`)).toBe(`hold-${earlier}-3`);
  expect(inFormOf(`seg-${NAME}`, `hold-${NAME}-3`)).toBe(`hold-${NAME}-3`);
  expect(deadTag(`seg-${earlier}`, Date.UTC(2026, 11, 1))).toBe("dead-20261201T000000Z-0123456789abcdef");
});

test("names sort by time, and every tag is one that registries take", () => {
  const time = fc.integer({ min: 0, max: Date.UTC(9999, 11, 31) });
  const id = fc.stringMatching(/^[0-9a-f]{16}$/);
  fc.assert(
    fc.property(time, time, id, (a, b, id) => {
      const [one, two] = [generationName(a, id), generationName(b, id)];
      expect(parseGenerationName(one)).toBe(one);
      expect(segmentTag(one)).toBe(segmentTag(one).toLowerCase());
      expect(generationTime(one)).toBe(Math.floor(a / 1000) * 1000);
      if (Math.floor(a / 1000) < Math.floor(b / 1000)) expect(one < two).toBe(true);
      expect(holdTag(one, 999)).toMatch(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/);
    }),
    propertyParameters(),
  );
});

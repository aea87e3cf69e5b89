import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  formatAttributePath,
  isPattern,
  parseSteps,
  readings,
  type Step,
  splitWords,
} from "../../../src/build/attribute-path.ts";
import { anyName } from "../../support/attribute-names.ts";
import { propertyParameters } from "../../support/seed.ts";

const named = (...names: string[]): Step[] => names.map((name) => ({ name }));

test.each<[string, string[]]>([
  ["a", ["a"]],
  ["packages.x86_64-linux.hello", ["packages", "x86_64-linux", "hello"]],
  ['a."b.c".d', ["a", "b.c", "d"]],
  ['"a b"', ["a b"]],
  ["2048-cli", ["2048-cli"]],
  ['""', [""]],
  ['a."".b', ["a", "", "b"]],
  [String.raw`"say \"hi\""`, ['say "hi"']],
  [String.raw`"a\\b"`, ["a\\b"]],
  [String.raw`"a\b"`, ["a\\b"]],
  [String.raw`"line\nline"`, ["line\nline"]],
  [String.raw`"\${x}"`, ["$" + "{x}"]],
  ['"$' + '{x}"', ["$" + "{x}"]],
  [String.raw`"all\*"`, ["all*"]],
  [String.raw`a\b`, ["a\\b"]],
  ["or.if", ["or", "if"]],
])("%s", (text, names) => {
  expect(parseSteps(text)).toEqual(named(...names));
});

test.each(["", ".", "a.", ".a", "a..b", 'a"b"', '"a', '"a"b', String.raw`"a\"`])("%j is none", (text) => {
  expect(() => parseSteps(text)).toThrow(/is not an attribute path$/);
});

test("wildcards are patterns, also between quotes", () => {
  const any = { wildcard: "*" } as const;
  expect(parseSteps('*.**.f?o."a.*"')).toEqual([
    { pattern: [any] },
    { pattern: [any, any] },
    { pattern: [{ text: "f" }, { wildcard: "?" }, { text: "o" }] },
    { pattern: [{ text: "a." }, any] },
  ]);
  expect(isPattern(parseSteps("a.*"))).toBe(true);
  expect(isPattern(parseSteps(String.raw`a."\*"`))).toBe(false);
});

test("names that Nix's command line reads in another way are looked for in both", () => {
  expect(readings(String.raw`a."C:\new"`)).toEqual([named("a", "C:\new"), named("a", "C:\\new")]);
  expect(readings(String.raw`a."b\"`)).toEqual([named("a", "b\\")]);
  expect(readings("a.b")).toEqual([named("a", "b")]);
  expect(() => readings('a."b')).toThrow(/is not an attribute path$/);
});

describe("whatever the names are", () => {
  test("what is written is read, and is one line", () => {
    fc.assert(
      fc.property(fc.array(anyName(), { minLength: 1 }), (path) => {
        const text = formatAttributePath(path);
        expect(parseSteps(text)).toEqual(named(...path));
        expect(text).not.toMatch(/[\n\r]/);
      }),
      propertyParameters(),
    );
  });

  test("a list of written paths, with blanks between them, is read", () => {
    fc.assert(
      fc.property(fc.array(fc.array(anyName(), { minLength: 1 })), (paths) => {
        const texts = paths.map(formatAttributePath);
        expect(splitWords(` ${texts.join(" \n ")} `)).toEqual(texts);
      }),
      propertyParameters(),
    );
  });
});

test("a quote that is not closed is a part of its word", () => {
  expect(splitWords('a "b c')).toEqual(["a", '"b', "c"]);
});

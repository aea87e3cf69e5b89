import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  compilePattern,
  formatAttributePath,
  parseAttributePath,
  SEPARATOR,
} from "../../../src/build/attribute-path.ts";
import { propertyParameters } from "../../support/seed.ts";

test.each<[string, string[]]>([
  ["a", ["a"]],
  ["packages.x86_64-linux.hello", ["packages", "x86_64-linux", "hello"]],
  ['a."b.c".d', ["a", "b.c", "d"]],
  ['"a b"', ["a b"]],
  ["*.**.f?o", ["*", "**", "f?o"]],
  ["2048-cli", ["2048-cli"]],
])("%s", (text, names) => {
  expect(parseAttributePath(text)).toEqual(names);
});

test.each(["", ".", "a.", ".a", "a..b", 'a"b"', '"a', '"a"b', '""', 'a."".b', `a${SEPARATOR}b`])(
  "%j is none",
  (text) => {
    expect(() => parseAttributePath(text)).toThrow(/is not an attribute path$/);
  },
);

test("what is written is read", () => {
  const name = fc.string({ minLength: 1 }).filter((text) => !text.includes('"') && !text.includes(SEPARATOR));
  fc.assert(
    fc.property(fc.array(name, { minLength: 1 }), (path) => {
      expect(parseAttributePath(formatAttributePath(path))).toEqual(path);
    }),
    propertyParameters(),
  );
});

describe("patterns", () => {
  const matches = (expression: string, path: string) =>
    // `builtins.match` matches the whole, and its dot newlines too.
    new RegExp(`^(?:${expression})$`, "s").test(parseAttributePath(path).join(SEPARATOR));

  test.each<[string, string, boolean, boolean]>([
    // pattern, path, meant, reached
    ["a.b", "a", false, true],
    ["a.b", "a.b", true, true],
    ["a.b", "a.b.c", true, true],
    ["a.b", "a.bc", false, false],
    ["a.b", "b", false, false],
    ["packages.*.foo*", "packages.x86_64-linux", false, true],
    ["packages.*.foo*", "packages.x86_64-linux.foo-1", true, true],
    ["packages.*.foo*", "packages.x86_64-linux.afoo", false, false],
    ["packages.*.foo*", "packages.foo", false, true],
    ["*.b", "a.x.b", false, false],
    ["a.?", "a.x", true, true],
    ["a.?", "a.xy", false, false],
    ["**", "a.b", true, true],
    ["**.b", "b", true, true],
    ["**.b", "x.y.b", true, true],
    ["**.b", "x.y", false, true],
    ["a.**.b", "a.b", true, true],
    ["a.**.**.b", "a.x.y.b.z", true, true],
    ["a.**.b", "x.b", false, false],
    ["a.**", "a", true, true],
    ["a.b+(c)|d", "a.b+(c)|d", true, true],
    ["a.b+(c)|d", "a.d", false, false],
    ['a."b.c*"', 'a."b.cd"', true, true],
    ['a."b.c"', "a.b.c", false, false],
  ])("%s and %s", (pattern, path, meant, reached) => {
    const compiled = compilePattern(pattern);
    expect(matches(compiled.meant, path)).toBe(meant);
    expect(matches(compiled.reached, path)).toBe(reached);
  });

  test("every way to what is meant is reached", () => {
    const name = fc.constantFrom("a", "b", "ab", "*", "**", "a*", "?");
    const plain = fc.constantFrom("a", "b", "ab", "ba");
    fc.assert(
      fc.property(
        fc.array(name, { minLength: 1, maxLength: 5 }),
        fc.array(plain, { minLength: 1, maxLength: 6 }),
        (pattern, path) => {
          const compiled = compilePattern(pattern.join("."));
          if (!matches(compiled.meant, path.join("."))) return;
          for (let length = 1; length <= path.length; length++) {
            expect(matches(compiled.reached, path.slice(0, length).join("."))).toBe(true);
          }
        },
      ),
      propertyParameters(),
    );
  });
});

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { formatAttributePath, parseSteps } from "../../../src/build/attribute-path.ts";
import { compilePattern, joinPath, nameExpression } from "../../../src/build/pattern.ts";
import { anyName } from "../../support/attribute-names.ts";
import { propertyParameters } from "../../support/seed.ts";

/** As `builtins.match` does: over bytes, the whole text, and its dot takes newlines too. */
function matches(expression: string, path: readonly string[]): boolean {
  const bytes = (text: string) => Buffer.from(text).toString("latin1").replaceAll("[]]", "\\]");
  return new RegExp(`^(?:${bytes(expression)})$`, "s").test(Buffer.from(joinPath(path)).toString("latin1"));
}

const pathOf = (text: string) => parseSteps(text).map((step) => ("name" in step ? step.name : "*"));

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
  ["a.?", 'a."é"', true, true],
  ["a.?", 'a."日"', true, true],
  ["a.?", 'a."😀"', true, true],
  ["a.?", 'a."日本"', false, false],
  ["a.*", 'a.""', true, true],
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
  [String.raw`a."b\*"`, String.raw`a."b\*"`, true, true],
  [String.raw`a."b\*"`, "a.bc", false, false],
])("%s and %s", (text, path, meant, reached) => {
  const pattern = compilePattern(text);
  expect(matches(pattern.posix.meant, pathOf(path))).toBe(meant);
  expect(matches(pattern.posix.reached, pathOf(path))).toBe(reached);
  expect(pattern.means(pathOf(path))).toBe(meant);
  expect(pattern.reaches(pathOf(path))).toBe(reached);
});

describe("whatever the names are", () => {
  test("every way to what is meant is reached, and both kinds of expressions say the same", () => {
    const name = fc.constantFrom("a", "b", "ab", "*", "**", "a*", "?");
    const plain = fc.constantFrom("a", "b", "ab", "ba");
    fc.assert(
      fc.property(
        fc.array(name, { minLength: 1, maxLength: 5 }),
        fc.array(plain, { minLength: 1, maxLength: 6 }),
        (text, path) => {
          const pattern = compilePattern(text.join("."));
          const isMeant = pattern.means(path);
          expect(matches(pattern.posix.meant, path)).toBe(isMeant);
          for (let length = 1; length <= path.length; length++) {
            const start = path.slice(0, length);
            expect(matches(pattern.posix.reached, start)).toBe(pattern.reaches(start));
            if (isMeant) expect(pattern.reaches(start)).toBe(true);
          }
        },
      ),
      propertyParameters(),
    );
  });

  test("a path as it is written means itself, and no other", () => {
    const paths = fc.array(anyName(), { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(paths, paths, (path, other) => {
        const pattern = compilePattern(formatAttributePath(path));
        const isBelow = path.every((name, index) => name === other[index]);
        for (const [found, expected] of [
          [path, true],
          [other, isBelow],
        ] as const) {
          expect(matches(pattern.posix.meant, found)).toBe(expected);
          expect(pattern.means(found)).toBe(expected);
        }
      }),
      propertyParameters(),
    );
  });

  test("any name is like *", () => {
    fc.assert(
      fc.property(anyName(), (name) => {
        expect(matches(nameExpression(parseSteps("*")[0] as never), [name])).toBe(true);
      }),
      propertyParameters(),
    );
  });
});

/** `docs/durability.md` and `docs/security.md` name tests as proofs: each must run under that name. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { hasTitle, titlesIn } from "../support/test-titles.ts";

const ROOT = join(import.meta.dir, "../..");
const text = ["durability", "security"]
  .map((page) => readFileSync(join(ROOT, `docs/${page}.md`), "utf8"))
  .join("\n");

/** Rows such as "| … | `unit/x.test.ts` | name of a test |". */
const proofs = [...text.matchAll(/^\|.*?`([a-z][\w/.-]+\.test\.ts)` \| ([^|]+?) \|$/gm)].map(
  ([, file = "", name = ""]) => [file, name.replaceAll("`", "")] as const,
);

/** Titles of a file, without quotes that a title in Markdown cannot have. */
const titles = new Map<string, string[]>();
function titlesOf(file: string): string[] {
  const known = titles.get(file);
  if (known !== undefined) return known;
  const source = readFileSync(join(ROOT, "tests", file), "utf8");
  const found = titlesIn(source).map((title) => title.replaceAll("`", ""));
  titles.set(file, found);
  return found;
}

test("the document names proofs, in every row that names a test file", () => {
  expect(proofs.length).toBeGreaterThan(100);
  const rows = text.split("\n").filter((line) => line.startsWith("|") && line.includes(".test.ts`"));
  expect(proofs.length).toBe(rows.length);
});

test.each(proofs)("%s: %s", (file, name) => {
  expect([file, name, hasTitle(titlesOf(file), name)]).toEqual([file, name, true]);
});

test("every source file that it names is there", () => {
  const named = [...text.matchAll(/`((?:src|tests|scripts)\/[^`\s]+)`/g)].map(([, file = ""]) => file);
  expect(named.length).toBeGreaterThan(25);
  expect(named.filter((file) => !existsSync(join(ROOT, file)))).toEqual([]);
});

describe("a proof is a test that runs", () => {
  const SOURCE = `
    // test("in a comment", () => {});
    const text = "in a text";
    test("one that runs", () => { expect(1).toBe(1); });
    test.skip("one that is skipped", () => {});
    test.todo("one to do");
    describe.skip("a group", () => { test("inside a skipped group", () => {}); });
    describe.skipIf(!hasNix())("a group that needs Nix", () => { test(\`of \${count} rounds\`, () => {}); });
    const ROWS = [["a row", 1]];
    test.each([...ROWS, ["another row", 2]])("of a table: %s", () => {});
  `;

  test.each([
    ["one that runs", true],
    ["one …", true],
    ["runs one", false],
    ["in a comment", false],
    ["in a text", false],
    ["one that is skipped", false],
    ["one to do", false],
    ["inside a skipped group", false],
    ["of … rounds", true],
    ["a row", true],
    ["another row", true],
    ["of a table", true],
  ])("%s: %p", (name, expected) => {
    expect(hasTitle(titlesIn(SOURCE), name)).toBe(expected);
  });
});

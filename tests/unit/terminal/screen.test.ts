import { expect, test } from "bun:test";
import { fitting, painter, sentence } from "../../../src/terminal/screen.ts";

test("colours are for screens that have them", () => {
  expect(painter({ columns: 80, colors: true })("red", "x")).toBe("\u001b[31mx\u001b[39m");
  expect(painter({ columns: 80, colors: false })("red", "x")).toBe("x");
  expect(painter(undefined)("red", "x")).toBe("x");
});

test.each<[string[], number, string]>([
  [[], 10, ""],
  [["a", "b"], 4, "a, b"],
  [["a", "b", "c"], 100, "a, b, c"],
  [["aaaa", "bbbb", "cccc"], 16, "aaaa, bbbb, cccc"],
  [["aaaa", "bbbb", "cccc"], 14, "aaaa, … 2 more"],
  // One item is shown, however long.
  [["aaaaaaaaaa", "b"], 5, "aaaaaaaaaa, … 1 more"],
  [["世界", "世界"], 8, "世界, … 1 more"],
])("%j in %d characters is %j", (items, width, expected) => {
  expect(fitting(items, width)).toBe(expected);
});

test("a sentence is cut into lines of a screen alone", () => {
  const text = "one two three four five six seven";
  expect(sentence(text, "  ", undefined)).toEqual([`  ${text}`]);
  expect(sentence(text, "  ", { columns: 24, colors: false })).toEqual([
    "  one two three four",
    "  five six seven",
  ]);
});

import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { appendOutputs, appendSummary, fitting, formatOutputs } from "../../../src/actions/step-files.ts";

const folder = mkdtempSync(join(tmpdir(), "nixcache-test-actions-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("outputs, whatever is in their values", () => {
  expect(formatOutputs({ a: "1", b: "x\nc=y\n" }, "END")).toBe("a<<END\n1\nEND\nb<<END\nx\nc=y\n\nEND\n");
});

test("outputs come behind those that are there, and must be written", () => {
  const file = join(folder, "outputs");
  writeFileSync(file, "first=1\n");
  appendOutputs(file, "second=2\n");
  expect(readFileSync(file, "utf8")).toBe("first=1\nsecond=2\n");
  expect(() => appendOutputs(folder, "x")).toThrow(/cannot write the step's outputs to/);
});

describe("a summary", () => {
  test.each([
    ["all sections", ["a", "b"], 100, "a\nb"],
    [
      "the first ones, and that there are more",
      ["a".repeat(20), "b".repeat(100)],
      100,
      /^a{20}\n\nThere is more/,
    ],
    ["nothing where there is not even room for that", ["a".repeat(50)], 20, ""],
    ["bytes, not characters", ["ä".repeat(60), "b"], 100, /^\nThere is more/],
  ])("%s", (_, sections, room, expected) => {
    const text = fitting(sections, room);
    if (typeof expected === "string") expect(text).toBe(expected);
    else expect(text).toMatch(expected);
    expect(Buffer.byteLength(text)).toBeLessThanOrEqual(room);
  });

  test("has at most 1 MiB, with what the step has written before", () => {
    const file = join(folder, "summary");
    writeFileSync(file, "x".repeat(1000_000));
    expect(appendSummary(file, ["first", "y".repeat(100_000)])).toBeUndefined();
    const text = readFileSync(file, "utf8");
    expect(text).toContain("first\n\nThere is more");
    expect(text.length).toBeLessThan(1024 * 1024);
  });

  test("that cannot be written is no error", () => {
    expect(appendSummary(join(folder, "no", "such"), ["x"])).toMatch(/cannot be written/);
  });
});

import { expect, test } from "bun:test";
import { formatBytes, formatCount, formatDuration } from "../../../src/terminal/format.ts";
import { progressText } from "../../../src/terminal/progress.ts";

test.each([
  [0, "0 B"],
  [1023, "1023 B"],
  [1024, "1.0 KiB"],
  [150 * 1024, "150 KiB"],
  [1.5 * 1024 ** 3, "1.5 GiB"],
  [2048 * 1024 ** 4, "2048 TiB"],
])("%i bytes", (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

test("counts and durations", () => {
  expect([formatCount(1, "path"), formatCount(2, "path")]).toEqual(["1 path", "2 paths"]);
  expect([999, 1500, 61_000].map(formatDuration)).toEqual(["999 ms", "1.5 s", "1 min 1 s"]);
});

test("progress", () => {
  const text = progressText({ total: 2048, compressed: 1024, sent: 512, elapsedMs: 1500 });
  expect(text).toBe("████████████░░░░░░░░░░░░  50%  1.0 KiB of 2.0 KiB, 512 B uploaded, 1.5 s");
});

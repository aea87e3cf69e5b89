import { expect, test } from "bun:test";
import {
  formatAge,
  formatBytes,
  formatCount,
  formatDuration,
  formatTime,
} from "../../../src/terminal/format.ts";
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

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

test.each([
  [-DAY, "now"],
  [59_999, "now"],
  [MINUTE, "1 minute"],
  [59.9 * MINUTE, "59 minutes"],
  [60 * MINUTE, "1 hour"],
  [DAY - 1, "23 hours"],
  [29.9 * DAY, "29 days"],
  [30 * DAY, "1 month"],
  [359 * DAY, "11 months"],
  [720 * DAY, "2 years"],
])("%d ms are the age %s", (ms, text) => {
  expect(formatAge(ms)).toBe(text);
  expect(text.length).toBeLessThan(11);
});

test("times", () => {
  expect(formatTime(Date.UTC(2026, 10, 23, 17, 53, 46))).toBe("2026-11-23 17:53 UTC");
});

test("progress", () => {
  const text = progressText({ total: 2048, compressed: 1024, sent: 512, elapsedMs: 1500 });
  expect(text).toBe("████████████░░░░░░░░░░░░  50%  1.0 KiB of 2.0 KiB, 512 B uploaded, 1.5 s");
});

import { expect, test } from "bun:test";
import {
  formatAge,
  formatCount,
  formatSize,
  formatTime,
  plural,
  splitName,
} from "../../../../src/serve/page/client/format.ts";

test.each<[number | null, string]>([
  [0, "0 B"],
  [1023, "1023 B"],
  [1024, "1.0 KiB"],
  [150 * 1024, "150 KiB"],
  [3.5 * 1024 ** 3, "3.5 GiB"],
  [2 ** 60, "1024 PiB"],
  [null, "unknown"],
])("size %p", (bytes, expected) => expect(formatSize(bytes)).toBe(expected));

test.each([
  [0, "0"],
  [999, "999"],
  [1000, "1,000"],
  [1234567, "1,234,567"],
])("count %p", (count, expected) => expect(formatCount(count)).toBe(expected));

const [SECOND, HOUR, DAY] = [1000, 3_600_000, 86_400_000];

test.each([
  [0, "just now"],
  [9 * SECOND, "just now"],
  [59 * SECOND, "59 seconds ago"],
  [60 * SECOND, "1 minute ago"],
  [HOUR - 1, "59 minutes ago"],
  [23 * HOUR, "23 hours ago"],
  [29 * DAY, "29 days ago"],
  [31 * DAY, "1 month ago"],
  [800 * DAY, "2 years ago"],
  // A publisher's clock may be ahead.
  [-30 * SECOND, "just now"],
  [-2 * HOUR, "in 2 hours"],
])("age %p", (ms, expected) => expect(formatAge(ms)).toBe(expected));

test("a time that is none is shown as it is", () => {
  expect(formatTime(Date.UTC(2026, 10, 23, 17, 53, 46))).toBe("2026-11-23 17:53 UTC");
  expect(formatTime(1e18)).toBe("1000000000000000000");
});

test.each([
  ["firefox-128.0.3", "firefox", "128.0.3"],
  ["python3.12-requests-2.32.3", "python3.12-requests", "2.32.3"],
  ["linux-6.6.40-modules", "linux", "6.6.40-modules"],
  ["unit-nginx.service", "unit-nginx.service", ""],
  ["-1", "-1", ""],
  ["a-", "a-", ""],
])("name %p", (full, name, version) => expect(splitName(full)).toEqual({ name, version }));

test("one and many", () => {
  expect([plural(1, "path"), plural(0, "path"), plural(2000, "path")]).toEqual([
    "1 path",
    "0 paths",
    "2,000 paths",
  ]);
});

import { expect, test } from "bun:test";
import type { CopyReport } from "../../../src/copy/copy.ts";
import { copyLines, copySummary, plainCopyLine } from "../../../src/terminal/copy-report.ts";

const BLOBS = { sent: 0, mounted: 0, present: 0, bytesSent: 0, bytesMounted: 0 };
const NONE = { copied: [], over: [], gone: [], unsigned: [], damaged: [] };
const REPORT: CopyReport = { ...NONE, present: 0, blobs: BLOBS };

test("what became of the generations", () => {
  expect(copyLines({ ...REPORT, copied: ["x"] })).toEqual([]);
  expect(copyLines({ ...REPORT, present: 2, over: ["x"], gone: ["y"] })).toEqual([
    "2 generations had been copied before",
    "1 generation ended at the destination before, and stays so",
    "1 generation ended at the source meanwhile",
    "there was nothing new to copy",
  ]);
});

test.each<[string, Partial<CopyReport["blobs"]>, string]>([
  ["transfers", { sent: 3, bytesSent: 2048, present: 1 }, "3 blobs of 2.0 KiB sent, 1 there already"],
  [
    "mounts",
    { mounted: 1, bytesMounted: 10 },
    "0 blobs of 0 B sent, 1 blob of 10 B mounted, 0 there already",
  ],
])("%s in one line", (_, blobs, amount) => {
  const report = { ...REPORT, copied: ["x", "y"], blobs: { ...BLOBS, ...blobs } };
  expect(copySummary(report, "there", 1500)).toBe(`copied 2 generations to there: ${amount}, 1.5 s`);
});

test("a log gets a line now and then, and none of a short copy", () => {
  const lines: string[] = [];
  let now = 0;
  const line = plainCopyLine(
    (text) => lines.push(text),
    () => now,
  );
  line.planned(3);
  const blobs = { ...BLOBS, sent: 1, present: 1, bytesSent: 1024 };
  for (; now < 70_000; now += 1000) line.moved({ generations: 1, blobs });
  expect(lines).toEqual([
    "1 of 3 generations, 2 blobs, 1.0 KiB sent, 30.0 s",
    "1 of 3 generations, 2 blobs, 1.0 KiB sent, 1 min 0 s",
  ]);
});

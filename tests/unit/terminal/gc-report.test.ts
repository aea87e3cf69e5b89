import { expect, test } from "bun:test";
import type { GcReport } from "../../../src/gc/gc.ts";
import type { Decision } from "../../../src/gc/plan.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { decisionLines, freedLines, gcSummary, refusalLines } from "../../../src/terminal/gc-report.ts";

function decision(n: number, source: string, more: Pick<Decision, "ends" | "rule" | "reason">): Decision {
  const record = { time: "", tool: "", source, roots: {}, keys: [], content: digestOf(""), entries: 1 };
  return { name: `20260101t000000z-${n.toString(16).padStart(16, "0")}`, record, ...more };
}

const ends = { ends: true, rule: "age", reason: "older than 30 days" } as const;
const stays = { ends: false, rule: "newest", reason: "the newest" } as const;

const report: GcReport = {
  decisions: [
    decision(1, "a", ends),
    decision(2, "a", stays),
    decision(3, "a", stays),
    decision(4, "b", stays),
  ],
  excessBytes: 2048,
  sizes: {
    stored: 4096,
    before: 3072,
    after: 1024,
    sources: [
      {
        source: "evil | <b>`x`</b>\n| y",
        generations: 4,
        staying: 3,
        before: 3072,
        after: 1024,
        alone: 1024,
      },
    ],
    outputs: [{ source: "a", output: "default", before: 2048, after: 1024 }],
  },
  freed: {
    gone: 2,
    bytes: 512,
    waiting: 1,
    refused: [
      { tag: "seg-x", reason: "no right" },
      { tag: "seg-y", reason: "no right" },
      { tag: "seg-z", reason: "too popular" },
    ],
  },
};

test("a line for each generation that ends, and one for each reason of a source's others", () => {
  expect(decisionLines(report, true)).toEqual([
    "would end 20260101t000000z-0000000000000001 of a: older than 30 days",
    "kept 2 generations of a: the newest",
    "kept 1 generation of b: the newest",
  ]);
});

test("what was freed, what waits, and one sentence for each reason of a refusal", () => {
  expect(freedLines(report)).toEqual([
    "deleted 2 generations that had ended before, which alone held 512 B",
    "1 ended generation waits for a run at least 26 hours later: readers may still use what they hold",
  ]);
  expect(refusalLines(report).map((line) => line.split(":")[0])).toEqual([
    "seg-x and 1 more could not be deleted",
    "seg-z could not be deleted",
  ]);
});

test("a summary whose cells hold no markup of strangers, and which stays short", () => {
  const summary = gcSummary(report, "ghcr.io/o/r", false).join("\n");
  expect(summary).toContain("1 generation of 4 ended");
  expect(summary).toContain("2.0 KiB larger than --max-size");
  const row = summary.split("\n").find((line) => line.includes("evil")) as string;
  expect(row.split("|").length).toBe(9);
  expect(row).not.toMatch(/<b>|`/);
  const many = { ...report, decisions: Array.from({ length: 5000 }, (_, n) => decision(n, "a", ends)) };
  const long = gcSummary(many, "ghcr.io/o/r", true).join("\n");
  expect(long).toContain("… and 4900 more.");
  expect(long.length).toBeLessThan(1024 * 1024);
});

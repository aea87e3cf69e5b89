/** The counts of the bench, which no busy machine changes: requests, bytes and memory, at its small sizes. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type OpenBench, openBench } from "../../bench/bench.ts";
import type { Goal, Round, Row } from "../../bench/row.ts";
import { closure } from "../../bench/rows/closure.ts";
import { narinfoMillion } from "../../bench/rows/narinfo-million.ts";
import { publishCounts } from "../../bench/rows/publish-counts.ts";
import { refresh } from "../../bench/rows/refresh.ts";
import { describeWith } from "../support/needs.ts";

/** By row what has to be run for its counts. */
const BUDGETS: readonly (readonly [Row, readonly string[]])[] = [
  [refresh, ["nothing", "tenNew"]],
  [publishCounts, ["all", "again"]],
  [closure, ["nixcache"]],
  [narinfoMillion, ["many"]],
];

function isCount({ unit, target }: Goal): boolean {
  return target !== undefined && (unit === "requests" || unit === "KiB" || unit === "MiB");
}

describeWith(["nix", "registry", "nginx", "wrk"], "budgets", () => {
  let bench: OpenBench;

  beforeAll(async () => {
    bench = await openBench({ quick: true });
  });
  afterAll(() => bench.close());

  test.each(BUDGETS.map(([row, contenders]) => [row.name, row, contenders] as const))(
    "%s",
    async (_, row, contenders) => {
      const { contenders: run, goals } = await row.open(bench);
      const round: Record<string, Round[string]> = {};
      for (const name of contenders) round[name] = (await run[name]?.()) ?? {};
      const counts = goals.filter(isCount);
      expect(counts.length).toBeGreaterThan(0);
      for (const { what, unit, target, figure } of counts) {
        const most = target !== undefined && "atMost" in target ? target.atMost : Number.NaN;
        const found = figure(round);
        console.log(`${row.name}, ${what}: ${found.toFixed(1)} ${unit} of ${most}`);
        expect(found).toBeGreaterThan(0);
        expect(found).toBeLessThanOrEqual(most);
      }
      await bench.endRow();
    },
    120_000,
  );
});

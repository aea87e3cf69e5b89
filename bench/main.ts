/**
 * `bun run bench [ROW…] [--rounds N] [--quick]`: what users feel, beside the alternatives, in one run.
 *
 * Prints one table of ratios and counts (see README.md). A target that is missed fails nothing; with `--quick` the
 * sizes are small, and what is off by more than twice makes the exit status 1.
 */
import { parseArgs } from "node:util";
import { build } from "../scripts/build.ts";
import { ensureParts } from "../scripts/parts.ts";
import { runScript } from "../scripts/process.ts";
import { openBench } from "./bench.ts";
import { describeLoad, describeMachine } from "./machine.ts";
import { judge, type Outcome, type Row, runRow } from "./row.ts";
import { ROWS } from "./rows.ts";
import { formatTable } from "./table.ts";

const ROUNDS = 5;
const QUICK_ROUNDS = 3;

await runScript(async () => {
  const { values, positionals } = parseArgs({
    options: { rounds: { type: "string" }, quick: { type: "boolean", default: false } },
    allowPositionals: true,
  });
  const quick = values.quick === true;
  const rounds = Number(values.rounds ?? (quick ? QUICK_ROUNDS : ROUNDS));
  if (!Number.isInteger(rounds) || rounds < 1)
    throw new Error(`--rounds: got ${JSON.stringify(values.rounds)}, expected a number from 1 on`);
  const rows = chosenRows(positionals);
  await ensureParts([...new Set(rows.flatMap(({ parts }) => parts))]);
  await build();
  console.log(`${await describeMachine()}, ${describeLoad()}`);
  const outcomes = await runRows(rows, rounds, quick);
  console.log(`\n${rounds} rounds${quick ? ", small sizes" : ""}, ${describeLoad()} at the end\n`);
  console.log(formatTable(outcomes));
  const off = outcomes.filter(({ verdict }) => verdict === "off");
  return quick && off.length > 0 ? 1 : 0;
});

async function runRows(rows: readonly Row[], rounds: number, quick: boolean): Promise<Outcome[]> {
  const bench = await openBench({ quick });
  const stop = () => void bench.close().finally(() => process.exit(130));
  process.once("SIGINT", stop).once("SIGTERM", stop);
  const outcomes: Outcome[] = [];
  try {
    for (const row of rows) {
      const start = performance.now();
      const opened = await row.open(bench);
      const ready = performance.now();
      const results = await runRow(opened, Math.min(rounds, row.mostRounds ?? rounds));
      outcomes.push(...judge(row.name, opened.goals, results));
      await bench.endRow();
      const seconds = [ready - start, performance.now() - ready].map((ms) => `${(ms / 1000).toFixed(0)} s`);
      console.log(`${row.name}: ${seconds[0]} to prepare, ${seconds[1]} to measure, ${describeLoad()}`);
      for (const [name, samples] of contenderMedians(results)) console.log(`  ${name}: ${samples}`);
    }
  } finally {
    await bench.close();
  }
  return outcomes;
}

function chosenRows(names: readonly string[]): readonly Row[] {
  if (names.length === 0) return ROWS;
  return names.map((name) => {
    const row = ROWS.find((row) => row.name === name);
    if (row === undefined)
      throw new Error(`no row ${JSON.stringify(name)}; there are ${ROWS.map((row) => row.name).join(", ")}`);
    return row;
  });
}

/** What each contender did, for whoever wants to know what a ratio is made of. */
function contenderMedians(rounds: readonly Record<string, Record<string, number>>[]): [string, string][] {
  return Object.keys(rounds[0] ?? {}).map((name) => {
    const figures = Object.keys(rounds[0]?.[name] ?? {}).map((figure) => {
      const sorted = rounds.map((round) => round[name]?.[figure] ?? Number.NaN).sort((a, b) => a - b);
      const median = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
      return `${figure} ${median.toPrecision(4)}`;
    });
    return [name, figures.join(", ")];
  });
}

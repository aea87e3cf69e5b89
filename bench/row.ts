/**
 * A row of the bench: contenders that take turns, round by round, and goals that compare what they did.
 *
 * What a goal judges is the median of its figure over the rounds. A figure that compares two contenders compares
 * them within one round, so that what slows a shared machine down for a minute slows both of them.
 */
import type { PartName } from "../scripts/parts.ts";
import type { Bench } from "./bench.ts";

/** What one contender did in one round, by name: seconds, requests, bytes. */
export type Sample = Readonly<Record<string, number>>;

/** What all of them did in one round. */
export type Round = Readonly<Record<string, Sample>>;

export interface Goal {
  /** Such as `hits, of nginx's`. */
  readonly what: string;
  readonly unit: Unit;
  /** Undefined: the figure is only shown. */
  readonly target?: { readonly atLeast: number } | { readonly atMost: number } | undefined;
  /** What is within reach where the target is not, by what README.md shows; twice as bad is off. */
  readonly within?: number | undefined;
  figure(round: Round): number;
}

/** `×` is a ratio. */
export type Unit = "×" | "ms" | "KiB" | "MiB" | "requests" | "/s" | "MiB/s";

export interface Row {
  /** By which it is asked for: `bun run bench NAME`. */
  readonly name: string;
  /** Programs of others that it needs. */
  readonly parts: readonly PartName[];
  /** Of rows that take minutes a round. Default: as many as are asked for. */
  readonly mostRounds?: number;
  open(bench: Bench): Promise<OpenRow>;
}

export interface OpenRow {
  readonly contenders: Readonly<Record<string, () => Promise<Sample>>>;
  readonly goals: readonly Goal[];
}

/** How a goal came out. */
export interface Outcome {
  readonly row: string;
  readonly goal: Goal;
  readonly median: number;
  readonly least: number;
  readonly most: number;
  readonly verdict: Verdict;
}

/** `off` is twice as bad as the target, or as what is within reach. */
export type Verdict = "holds" | "missed" | "off" | "";

/** Runs all contenders once a round, each round beginning with the next one. */
export async function runRow(row: OpenRow, rounds: number): Promise<Round[]> {
  const names = Object.keys(row.contenders);
  const results: Round[] = [];
  for (let round = 0; round < rounds; round++) {
    const samples: Record<string, Sample> = {};
    for (let turn = 0; turn < names.length; turn++) {
      const name = names[(round + turn) % names.length] as string;
      samples[name] = (await row.contenders[name]?.()) ?? {};
    }
    results.push(samples);
  }
  return results;
}

export function judge(row: string, goals: readonly Goal[], rounds: readonly Round[]): Outcome[] {
  return goals.map((goal) => {
    const figures = rounds.map((round) => goal.figure(round)).sort((a, b) => a - b);
    const median = medianOf(figures);
    const [least = Number.NaN] = figures;
    return {
      row,
      goal,
      median,
      least,
      most: figures.at(-1) ?? Number.NaN,
      verdict: verdictOf(median, goal),
    };
  });
}

/** @param sorted ascending */
export function medianOf(sorted: readonly number[]): number {
  const half = sorted.length / 2;
  return ((sorted[Math.ceil(half) - 1] ?? Number.NaN) + (sorted[Math.floor(half)] ?? Number.NaN)) / 2;
}

function verdictOf(figure: number, { target, within, unit }: Goal): Verdict {
  if (target === undefined) return "";
  const isLeast = "atLeast" in target;
  const bound = isLeast ? target.atLeast : target.atMost;
  if (isLeast ? figure >= bound : figure <= bound) return "holds";
  const reach = within ?? bound;
  // A time says more of the machine than of us.
  const isOff = unit !== "ms" && (isLeast ? figure < reach / 2 : figure > reach * 2);
  return isOff ? "off" : "missed";
}

/** A number of one contender's sample. @throws when it has none, which is a defect of the row. */
export function of(round: Round, contender: string, name: string): number {
  const value = round[contender]?.[name];
  if (value === undefined) throw new Error(`${contender} has no ${name}`);
  return value;
}

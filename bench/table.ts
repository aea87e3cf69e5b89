/** The table that the bench prints, as Markdown: it goes into `bench/README.md` as it is. */
import type { Outcome, Unit } from "./row.ts";

const HEAD = ["row", "what", "median", "spread", "target", ""];

export function formatTable(outcomes: readonly Outcome[]): string {
  const rows = outcomes.map((outcome) => {
    const { row, goal, median, least, most, verdict } = outcome;
    const show = (figure: number) => formatFigure(figure, goal.unit);
    const spread = least === most ? "" : `${show(least)} … ${show(most)}`;
    return [row, goal.what, show(median), spread, formatTarget(outcome), verdict];
  });
  const widths = HEAD.map((head, at) =>
    Math.max(3, ...[head, ...rows.map((row) => row[at] ?? "")].map(width)),
  );
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, at) => cell + " ".repeat((widths[at] ?? 0) - width(cell))).join(" | ")} |`;
  const rule = `|${widths.map((count) => "-".repeat(count + 2)).join("|")}|`;
  return [line(HEAD), rule, ...rows.map(line)].join("\n");
}

function formatTarget({ goal: { target, unit } }: Outcome): string {
  if (target === undefined) return "";
  return "atLeast" in target
    ? `≥ ${formatFigure(target.atLeast, unit)}`
    : `≤ ${formatFigure(target.atMost, unit)}`;
}

export function formatFigure(figure: number, unit: Unit): string {
  if (unit === "×") return `${figure.toFixed(2)} ×`;
  const digits = figure < 10 && !Number.isInteger(figure) ? 2 : 0;
  return `${figure.toFixed(digits)} ${unit}`;
}

/** Columns of a terminal: what is used here takes one each. */
function width(text: string): number {
  return [...text].length;
}

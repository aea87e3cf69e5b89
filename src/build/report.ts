/** What became of every output, as a table for a terminal or for a GitHub job summary. */
import { printable } from "../errors.ts";
import type { BuildResult, BuildStatus } from "./build.ts";
import type { BuildState } from "./build-log.ts";
import type { Discovery } from "./discovery.ts";

/** `missing`: it was named and is not there. `broken`: it could not be evaluated. `skipped`: it is not for this machine. */
export type OutputStatus = BuildStatus | "missing" | "broken" | "skipped";

export interface OutputRow {
  /** Its attribute path; empty for a whole file. */
  readonly attribute: string;
  /** The store path of its first output, `out` where it has one. */
  readonly path?: string;
  readonly status: OutputStatus;
  readonly reason?: string;
  readonly seconds?: number;
  /** The last lines of its build log. */
  readonly log?: readonly string[];
}

/** What needs somebody comes first. */
const ORDER: readonly OutputStatus[] = [
  ...(["failed", "missing", "broken", "blocked", "stopped"] as const),
  ...(["built", "substituted", "present", "skipped"] as const),
];

/** GitHub takes a summary of 1 MiB. */
const MAX_ROWS = 300;
const MAX_LOGS = 10;

/** What an attribute stands for: `out` where there is one, else the first output by name. */
export function firstOutput<T>(outputs: Readonly<Record<string, T>>): Record<string, T> {
  const [first] = Object.entries(outputs).filter(([name]) => name === "out" || !("out" in outputs));
  return first === undefined ? {} : { [first[0]]: first[1] };
}

/** By status, failures first; in the order of discovery among equals. */
export function outputRows(discovery: Discovery, result: BuildResult): OutputRow[] {
  const rows: OutputRow[] = [
    ...result.targets.map(({ target, outputs, status, reason, seconds, log }) => {
      const path = Object.values(firstOutput({ ...target.outputs, ...outputs }))[0] ?? undefined;
      return {
        attribute: target.attribute,
        status,
        ...(path === undefined ? {} : { path }),
        ...(reason === undefined ? {} : { reason }),
        ...(seconds === undefined ? {} : { seconds }),
        // A blocked one's log is that of what it needs, which mostly has a row of its own.
        ...(log === undefined || status === "blocked" ? {} : { log }),
      };
    }),
    ...discovery.missing.map((missing) => ({ ...missing, status: "missing" as const })),
    ...discovery.broken.map((broken) => ({ ...broken, status: "broken" as const })),
    ...discovery.skipped.map((skipped) => ({ ...skipped, status: "skipped" as const })),
  ];
  return rows.sort((a, b) => ORDER.indexOf(a.status) - ORDER.indexOf(b.status));
}

/** Such as `3 built, 1 failed`, in the order of the rows. */
export function countStatuses(rows: readonly OutputRow[]): string {
  return ORDER.map((status) => ({ status, count: rows.filter((row) => row.status === status).length }))
    .filter(({ count }) => count > 0)
    .map(({ status, count }) => `${count} ${status}`)
    .join(", ");
}

/** Lines with aligned columns, without a newline at the end; each printable. */
export function renderText(rows: readonly OutputRow[]): string {
  const names = rows.map(({ attribute }) => printable(attribute || "(the file)"));
  const width = Math.max(0, ...names.map((name) => name.length));
  const statusWidth = Math.max(0, ...rows.map(({ status }) => status.length));
  return rows
    .map((row, index) => {
      const rest = row.reason ?? [row.path, duration(row.seconds)].filter(Boolean).join(", ");
      return `${row.status.padEnd(statusWidth)}  ${(names[index] ?? "").padEnd(width)}  ${printable(rest)}`.trimEnd();
    })
    .join("\n");
}

/** GitHub's Markdown: a table, and the ends of the logs of what failed, folded away. */
export function renderMarkdown(rows: readonly OutputRow[]): string {
  if (rows.length === 0) return "No outputs.\n";
  const cell = (text: string) => (text === "" ? "" : `<code>${escapeCell(text)}</code>`);
  const lines = ["| output | status | path or reason | time |", "|---|---|---|---|"];
  for (const row of rows.slice(0, MAX_ROWS)) {
    const what = row.reason === undefined ? cell(row.path ?? "") : escapeCell(row.reason);
    lines.push(
      `| ${cell(row.attribute || "(the file)")} | ${row.status} | ${what} | ${duration(row.seconds)} |`,
    );
  }
  if (rows.length > MAX_ROWS) lines.push("", `… and ${rows.length - MAX_ROWS} more.`);
  for (const { attribute, log } of rows.filter((row) => row.log !== undefined).slice(0, MAX_LOGS)) {
    const text = (log ?? []).map((line) => escapeHtml(printable(line))).join("\n");
    const summary = `<summary>The end of the log of <code>${escapeCell(attribute)}</code></summary>`;
    lines.push("", `<details>${summary}`, "", "<pre>", text, "</pre>", "</details>");
  }
  return `${lines.join("\n")}\n`;
}

/** One line, at most `width` characters: what is being built, and the last that it said. */
export function stateText(state: BuildState, width: number): string {
  const failed = state.failed > 0 ? `, ${state.failed} failed` : "";
  const running = state.running.join(", ");
  const text = `[${state.built} of ${state.expected} built${failed}] ${running}`;
  return (state.lastLine === "" ? text : `${text}: ${state.lastLine}`).slice(0, width).trimEnd();
}

function duration(seconds: number | undefined): string {
  if (seconds === undefined) return "";
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

function escapeHtml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Character references are never taken for Markdown, nor for the end of a cell. */
export function escapeCell(text: string): string {
  return escapeHtml(printable(text)).replace(
    /[\\`*_[\]|~@:]/g,
    (character) => `&#${character.charCodeAt(0)};`,
  );
}

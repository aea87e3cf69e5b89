/** What a collection has decided and done, for people: lines for a terminal, and Markdown for GitHub Actions. */
import { printable } from "../errors.ts";
import type { GcReport } from "../gc/gc.ts";
import type { Decision } from "../gc/plan.ts";
import { formatBytes, formatCount } from "./format.ts";

/** Rows of one table in a summary. */
const MAX_ROWS = 100;

/** What became of the current outputs of a flake. Names come from strangers. */
export function currentLines({ current }: GcReport, dryRun: boolean): string[] {
  if (current === undefined) return [];
  const { generation, unchanged, count, lacking } = current;
  const outputs = `${formatCount(count - lacking.length, "output")} of ${count}`;
  const what =
    generation === null
      ? unchanged
        ? `the newest generation has the current outputs already: ${outputs}`
        : "the cache has none of the current outputs, so no generation was made of them"
      : `${dryRun ? "would record" : "recorded"} the current outputs as ${generation}: ${outputs}`;
  const partial =
    lacking.length > 0 && generation !== null
      ? ["some are not in the cache, so it ends nothing that was published before"]
      : [];
  const absent = lacking
    .slice(0, MAX_ROWS)
    .map(({ output, path }) => printable(`not in the cache: ${output} (${path})`));
  if (lacking.length > MAX_ROWS) absent.push(`… and ${lacking.length - MAX_ROWS} more`);
  return [...absent, what, ...partial];
}

/** One line for each generation that ends, and one for each reason why others stay. */
export function decisionLines({ decisions }: GcReport, dryRun: boolean): string[] {
  const ending = decisions.filter(({ ends }) => ends);
  const staying = Map.groupBy(
    decisions.filter(({ ends }) => !ends),
    ({ record, reason }) => `${record.source}: ${reason}`,
  );
  return [
    ...ending.map(
      (decision) => `${dryRun ? "would end" : "ended"} ${describe(decision)}: ${decision.reason}`,
    ),
    ...[...staying].map(([reason, some]) => `kept ${formatCount(some.length, "generation")} of ${reason}`),
  ];
}

export function sizeLine({ sizes: { stored, before, after } }: GcReport): string {
  return `${formatBytes(before)} were alive before, ${formatBytes(after)} are after; ${formatBytes(stored)} are stored`;
}

/** What was freed, and what waits. */
export function freedLines({ freed }: GcReport): string[] {
  if (freed === undefined) return [];
  const { gone, bytes, waiting, collected } = freed;
  const lines: string[] = [];
  if (gone > 0) {
    const amount = formatBytes(bytes);
    lines.push(
      `deleted ${formatCount(gone, "generation")} that had ended before, which alone held ${amount}`,
    );
  }
  if (collected !== undefined && collected.blobs > 0)
    lines.push(`removed ${formatCount(collected.blobs, "file")} of ${formatBytes(collected.bytes)}`);
  if (waiting > 0) {
    const ended = formatCount(waiting, "ended generation waits", "ended generations wait");
    lines.push(`${ended} for a run at least 26 hours later: readers may still use what they hold`);
  }
  return lines;
}

/** One sentence for each reason for which something could not be deleted. */
export function refusalLines({ freed }: GcReport): string[] {
  const byReason = Map.groupBy(freed?.refused ?? [], ({ reason }) => reason);
  return [...byReason].map(([reason, some]) => {
    const others = some.length > 1 ? ` and ${some.length - 1} more` : "";
    return `${some[0]?.tag}${others} could not be deleted: ${reason}. Nobody is served from there any more, but the space is not free`;
  });
}

export function excessLine({ excessBytes }: GcReport): string | undefined {
  if (excessBytes === 0) return undefined;
  return `the cache is ${formatBytes(excessBytes)} larger than --max-size, and all that may end has ended: the newest of each kept branch, pins, and what is younger than a day stay`;
}

/** The sections of a step's summary in Markdown, the first ones the most important. */
export function gcSummary(report: GcReport, cacheName: string, dryRun: boolean): string[] {
  const { decisions, sizes } = report;
  const ending = decisions.filter(({ ends }) => ends);
  const excess = excessLine(report);
  const notes = [
    ...[...currentLines(report, dryRun), ...freedLines(report)].map((line) => `- ${escapeCell(line)}`),
    ...[...refusalLines(report), ...(excess === undefined ? [] : [excess])].map(
      (line) => `- ⚠️ ${escapeCell(line)}`,
    ),
  ];
  return [
    `### Garbage collection of ${code(cacheName)}${dryRun ? " (dry run)" : ""}\n`,
    `${formatCount(ending.length, "generation")} of ${decisions.length} ${dryRun ? "would end" : "ended"}: ${sizeLine(report)}.\n`,
    ...notes.map((note) => `${note}\n`),
    ...table(
      ["Source", "System", "Generations", "Stay", "Before", "After", "Only here"],
      sizes.sources.map(({ source, system = "", generations, staying, before, after, alone }) => [
        code(source),
        escapeCell(system),
        String(generations),
        String(staying),
        formatBytes(before),
        formatBytes(after),
        formatBytes(alone),
      ]),
    ),
    ...table(
      ["Output", "Source", "Before", "After"],
      (sizes.outputs ?? []).map(({ output, source, before, after }) => [
        code(output),
        code(source),
        formatBytes(before),
        formatBytes(after),
      ]),
    ),
    ...table(
      ["Generation", "Source", dryRun ? "Would end because" : "Ended because"],
      ending.map(({ name, record, reason }) => [code(name), code(record.source), escapeCell(reason)]),
    ),
  ];
}

function describe({ name, record: { source, system } }: Decision): string {
  return `${name} of ${source}${system === undefined ? "" : ` for ${system}`}`;
}

/** One section, or none where there are no rows. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  if (rows.length === 0) return [];
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const more = rows.length > MAX_ROWS ? ["", `… and ${rows.length - MAX_ROWS} more.`] : [];
  const shown = rows.slice(0, MAX_ROWS).map(line);
  return [["", line(head), line(head.map(() => "---")), ...shown, ...more, ""].join("\n")];
}

/** Names come from strangers: nothing in them may end a cell or become markup. */
function code(text: string): string {
  return `<code>${escapeCell(text)}</code>`;
}

function escapeCell(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, " ")
    .replace(/[&<>|`*_[\]\\!#~@]/g, (character) => `&#${character.codePointAt(0)};`);
}

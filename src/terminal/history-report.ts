/** Publish records, for people and for programs. */
import type { HistoryItem } from "../inspect/history.ts";
import { formatBytes, formatCount } from "./format.ts";
import { shown, sourceText, timeText } from "./generation.ts";
import { resultJson } from "./result-json.ts";
import { fitting, painter, type Screen } from "./screen.ts";

/** Width of what stands before a fact. */
const LABEL = 10;

/** A block for each. On a screen the list of outputs is cut where it would be longer than a line. */
export function historyLines(
  items: readonly HistoryItem[],
  screen: Screen | undefined,
  now: number,
): string[] {
  const paint = painter(screen);
  const width = (screen?.columns ?? Number.POSITIVE_INFINITY) - LABEL - 2;
  return items.flatMap((item, place) => {
    const { record, name } = item;
    const facts: [string, string | undefined][] = [
      ["source", sourceText(record)],
      ["revision", record.revision && shown(record.revision)],
      ["selection", record.selection && shown(record.selection)],
      ["outputs", fitting(Object.keys(record.roots).sort().map(shown), width) || undefined],
      ["paths", pathsText(item)],
      ["run", record.run && shown(record.run)],
    ];
    const partial = record.partial ? paint("yellow", "  (a part of a run)") : "";
    const lines = facts.flatMap(([label, text]) =>
      text === undefined ? [] : [`  ${paint("dim", label.padEnd(LABEL))}${text}`],
    );
    const head = `${paint("bold", name)}  ${timeText(item, now)}${partial}`;
    return place === 0 ? [head, ...lines] : ["", head, ...lines];
  });
}

function pathsText({ record: { entries }, before, added }: HistoryItem): string {
  const count = formatCount(entries, "path");
  if (added === undefined) return `${count}; what is new is not known`;
  if (added.paths === 0) return `${count}, none of them new`;
  const sizes = `${formatBytes(added.narSize)} unpacked, ${formatBytes(added.fileSize)} compressed`;
  const fresh = before === undefined ? "the first of its kind" : `${added.paths} of them new`;
  return `${count}, ${fresh}: ${sizes}`;
}

export function historyJson(cacheName: string, items: readonly HistoryItem[], total: number): string {
  const generations = items.map(({ name, record, before, added }) => {
    const { source, branch, revision, system, selection, run, time, tool, partial, roots, entries } = record;
    return {
      ...{ generation: name, time, source, branch, system, selection, revision, run, tool, partial },
      outputs: roots,
      paths: entries,
      before: before ?? null,
      added: added ?? null,
    };
  });
  return resultJson({ cache: cacheName, total, generations });
}

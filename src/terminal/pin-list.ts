/** The pins of a cache as lines of text. */
import { printable } from "../errors.ts";
import type { ListedPin } from "../pins/list.ts";
import { formatBytes, formatCount } from "./format.ts";

/** One line for each pin, in columns. */
export function pinLines(pins: readonly ListedPin[]): string[] {
  const rows = pins.map(({ name, path, since, until, over, revisions, bytes }) => [
    printable(name),
    printable(path),
    `since ${since.slice(0, 10)}`,
    until === null ? "for ever" : `until ${until.slice(0, 10)}${over ? " (over)" : ""}`,
    formatCount(revisions.length, "revision"),
    formatBytes(bytes),
  ]);
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}

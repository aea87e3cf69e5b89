/** The paths of a cache, for people and for programs. */
import type { Generation } from "../cache/index-layer.ts";
import type { List, ListedPath } from "../inspect/list.ts";
import { STORE_DIR } from "../nar/store-path.ts";
import { formatAge, formatBytes, formatCount } from "./format.ts";
import { sourceText } from "./generation.ts";
import { resultJson } from "./result-json.ts";
import { type Paint, painter, type Screen } from "./screen.ts";

/** From so many characters a line on there is room for whole store paths; below it the names are shown. */
const WIDE = 140;

/** Sizes have 8 characters at most, ages 9. */
const WIDTHS = { size: 8, compressed: 10, closure: 8, age: 9 } as const;

const HEAD = `${Object.entries(WIDTHS)
  .map(([title, width]) => title.toUpperCase().padStart(width))
  .join("  ")}  `;

/** Columns for a screen; elsewhere a path a line, with the generations that hold it behind a tab. */
export function* listLines(
  { paths }: List,
  generations: ReadonlyMap<string, Generation>,
  screen: Screen | undefined,
  now: number,
): Generator<string> {
  if (screen === undefined) {
    for (const path of paths) yield [storePath(path), path.generations?.join(" ") ?? []].flat().join("\t");
    return;
  }
  const paint = painter(screen);
  const isWide = screen.columns >= WIDE;
  let isFirst = true;
  for (const path of paths) {
    if (isFirst) yield paint("dim", HEAD + (isWide ? "PATH" : "NAME"));
    isFirst = false;
    yield row(path, screen.columns, paint, now);
    for (const name of path.generations ?? []) yield holder(name, generations.get(name), paint);
  }
}

function row(path: ListedPath, columns: number, paint: Paint, now: number): string {
  const { hash, name, narSize, fileSize, closure, added } = path;
  const size = (bytes: number | null | undefined) => (bytes == null ? "?" : formatBytes(bytes));
  const cells = [
    size(narSize).padStart(WIDTHS.size),
    size(fileSize).padStart(WIDTHS.compressed),
    size(closure?.narSize).padStart(WIDTHS.closure),
    formatAge(now - added * 1000).padStart(WIDTHS.age),
  ];
  const shown =
    columns >= WIDE ? paint("dim", `${STORE_DIR}/${hash}-`) + name : cutInside(name, columns - HEAD.length);
  return `${cells.join("  ")}  ${shown}`;
}

/** Both ends of a text that is too long: a name ends with its version. */
function cutInside(text: string, width: number): string {
  if (text.length <= width || width < 3) return text;
  const start = Math.ceil((width - 1) / 2);
  return `${text.slice(0, start)}…${text.slice(text.length - (width - 1 - start))}`;
}

function holder(name: string, generation: Generation | undefined, paint: Paint): string {
  const source = generation === undefined ? "" : `  ${sourceText(generation.record)}`;
  return paint("dim", `    ${name}${source}`);
}

/** The JSON object in pieces: together they may be longer than what should be in memory. */
export function* listJson(cacheName: string, { paths, totals }: List): Generator<string> {
  yield `{"cache":${resultJson(cacheName)},"totals":${resultJson(totals)},"paths":[`;
  let before = "";
  for (const path of paths) {
    const { hash, added, ...others } = path;
    const row = { path: storePath(path), hash, ...others, added: isoTime(added) };
    yield before + resultJson(row);
    before = ",";
  }
  yield "]}";
}

/** Of all that match, listed or not. */
export function listTotals(
  cacheName: string,
  { totals: { paths, narSize, fileSize } }: List,
  text: string,
): string {
  const sizes = `${formatBytes(narSize)} unpacked, ${formatBytes(fileSize)} compressed`;
  const count = formatCount(paths, "path");
  return text === ""
    ? `${cacheName} has ${count}, ${sizes}`
    : `${count} of ${cacheName} ${paths === 1 ? "matches" : "match"}, ${sizes}`;
}

function storePath({ hash, name }: ListedPath): string {
  return `${STORE_DIR}/${hash}-${name}`;
}

/** Null for a number that is no time. */
function isoTime(seconds: number): string | null {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
}

/** Several layers as one: their lines in the order of store hashes, those for one path together. */
import type { EntryLine } from "./entry.ts";
import type { LayerFile } from "./layer-file.ts";

/** A line of a layer. */
export interface Place {
  readonly file: LayerFile;
  readonly rank: number;
}

/**
 * The places of each store hash from `from` on, never none, in the order of store hashes.
 * @throws `corrupt` for a damaged file
 */
export function* mergeLayers(files: readonly LayerFile[], from?: string): Generator<readonly Place[]> {
  const cursors = files.map((file) => ({ file, rank: from === undefined ? 0 : file.firstFrom(from) }));
  for (;;) {
    let first: { file: LayerFile; rank: number } | undefined;
    let key = Number.POSITIVE_INFINITY;
    let others = 0;
    for (const cursor of cursors) {
      const its = cursor.file.table.keys[cursor.rank];
      if (its === undefined || its > key) continue;
      others = its === key ? others + 1 : 0;
      if (its < key) first = cursor;
      key = its;
    }
    if (first === undefined) return;
    if (others === 0) {
      yield [{ file: first.file, rank: first.rank }];
      first.rank++;
      continue;
    }
    // The same key, and nearly always the same hash.
    const tied = cursors.filter(({ file, rank }) => file.table.keys[rank] === key);
    const hashes = tied.map(({ file, rank }) => file.hashAt(rank));
    const [hash] = hashes.toSorted();
    const same = tied.filter((_, place) => hashes[place] === hash);
    yield same.map(({ file, rank }) => ({ file, rank }));
    for (const cursor of same) cursor.rank++;
  }
}

/** The line that is shown of those at these places, of which there is one at least. @throws `corrupt` */
export function lineShown(places: readonly Place[]): EntryLine {
  return shownFirst(places.map(({ file, rank }) => file.lineAt(rank))) as EntryLine;
}

/** The line that is shown of several for one path: the one made last; a total order on content. */
export function shownFirst(lines: readonly EntryLine[]): EntryLine | undefined {
  return lines.reduce<EntryLine | undefined>(
    (best, line) => (best === undefined || compareShown(line, best) > 0 ? line : best),
    undefined,
  );
}

/** Over 0 when `a` is shown before `b`. */
export function compareShown(a: EntryLine, b: EntryLine): number {
  return a.added - b.added || compareBytes(a.narinfo, b.narinfo) || compareBytes(a.rest, b.rest);
}

/** JavaScript would compare UTF-16 units. */
function compareBytes(a: string, b: string): number {
  return a === b ? 0 : Buffer.compare(Buffer.from(a), Buffer.from(b));
}

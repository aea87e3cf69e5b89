/** Several layers as one: their lines in the order of store hashes, those for one path together. */
import { NixcacheError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
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
    if (others === 0 && first.file.table.keys[first.rank + 1] !== key) {
      yield [{ file: first.file, rank: first.rank }];
      first.rank++;
      continue;
    }
    // The same key, and nearly always the same hash.
    const tied = cursors.filter(({ file, rank }) => file.table.keys[rank] === key);
    const [hash] = tied.map(({ file, rank }) => file.hashAt(rank)).sort();
    const same: Place[] = [];
    for (const cursor of tied) {
      const { file } = cursor;
      for (; file.table.keys[cursor.rank] === key && file.hashAt(cursor.rank) === hash; cursor.rank++)
        same.push({ file, rank: cursor.rank });
    }
    yield same;
  }
}

/** A line that is no entry, where all must be. */
export class NoEntry extends NixcacheError {
  readonly layer: Digest;

  constructor(layer: Digest, hash: string) {
    super("corrupt", `the layer ${layer} has a line for ${hash} that is no entry`);
    this.layer = layer;
  }
}

/** The lines at these places. @throws NoEntry; `corrupt` for a damaged file */
export function everyLineAt(places: readonly Place[]): EntryLine[] {
  return places.map(({ file, rank }) => {
    const line = file.lineAt(rank);
    if (line === undefined) throw new NoEntry(file.digest, file.hashAt(rank));
    return line;
  });
}

/** The lines at these places, without what is no entry. @throws `corrupt` for a damaged file */
export function linesAt(places: readonly Place[]): EntryLine[] {
  return places.flatMap(({ file, rank }) => file.lineAt(rank) ?? []);
}

/**
 * A batch: what of the journal goes into the next generation, and the lines of that generation. It is a closure by
 * itself: what an entry refers to is in the batch, restated from our index, or had elsewhere (rule 3).
 */
import { type Attachment, MAX_ATTACHMENTS } from "../cache/attachment.ts";
import { allParts, type Entry, type EntryLine, encodeEntry, entryOf, filesOf } from "../cache/entry.ts";
import type { IndexReader } from "../cache/index-reader.ts";
import type { Part } from "../cache/part.ts";
import { mapConcurrently } from "../concurrency.ts";
import { type NarInfo, parseNarInfo } from "../nar/narinfo.ts";
import { storeHashOf } from "../nar/store-path.ts";
import type { Digest } from "../oci/digest.ts";
import type { Journal, JournalFile } from "./journal.ts";
import type { Piece } from "./pieces.ts";

/** Store paths of one batch. Its roots stand in one line of the index, and its lines are in memory. */
export const MAX_BATCH_PATHS = 2_000;

/** Bytes of their narinfos. */
const MAX_BATCH_BYTES = 64 * 1024 * 1024;

/** Questions about references under way at once. */
const ASK_AT_ONCE = 16;

/** Whether another cache has a store path, by its hash and its base name: one that is served beside ours, or an upstream. */
export type Elsewhere = (storeHash: string, baseName: string) => Promise<boolean>;

export interface Batch {
  readonly entries: readonly BatchEntry[];
  readonly restated: readonly EntryLine[];
  /** What the journal need not keep any longer: the cache has it already. */
  readonly done: readonly JournalFile[];
  /** Narinfos whose NAR is nowhere any more. */
  readonly orphans: readonly JournalFile[];
  /** Paths that have to wait, and why. */
  readonly waiting: readonly { readonly path: string; readonly reason: string }[];
  /** Whether the journal has more paths than one batch takes. */
  readonly more: boolean;
}

export interface BatchEntry {
  readonly info: NarInfo;
  /** The journal's files that this entry is made of. */
  readonly files: readonly JournalFile[];
  /** Where the NAR is, when the journal does not have it. */
  readonly parts: readonly Part[] | undefined;
  /** The cache's line for the path, which the new one replaces. */
  readonly known: EntryLine | undefined;
}

/** @param lost blobs that the index names and the store no longer has */
export async function planBatch(
  journal: Journal,
  index: IndexReader,
  elsewhere: Elsewhere,
  lost: ReadonlySet<Digest> = new Set(),
): Promise<Batch> {
  const usable = (line: EntryLine | undefined): EntryLine | undefined =>
    line && !allParts(filesOf(line.rest, line.storeHash)).some(({ blob }) => lost.has(blob))
      ? line
      : undefined;
  const lineOf = (hash: string) => usable(index.line(hash));

  const done: JournalFile[] = [];
  const orphans: JournalFile[] = [];
  const waiting: { path: string; reason: string }[] = [];
  const candidates = new Map<string, BatchEntry>();
  const consider = (
    hash: string,
    info: NarInfo,
    files: readonly JournalFile[],
    known: EntryLine | undefined,
  ) => {
    const nar = fileName(info);
    const kept = journal.file(`nar/${nar}`);
    const parts = kept === undefined ? narParts(index, nar, lost) : undefined;
    if (kept === undefined && parts === undefined) orphans.push(...files.filter(isNarInfo));
    else candidates.set(hash, { info, files: kept ? [...files, kept] : files, parts, known });
  };

  const narinfos = journal.narinfos(MAX_BATCH_PATHS, MAX_BATCH_BYTES);
  const more = narinfos.length < journal.totals().paths;
  for (const file of narinfos) {
    const hash = file.hash ?? "";
    const beside = journal.beside(hash, file.nar ?? "");
    const known = lineOf(hash);
    if (known?.narinfo === file.text && beside.length === 0) done.push(file);
    else consider(hash, parseNarInfo(file.text ?? "", file.path), [file, ...beside], known);
  }
  const additions = Map.groupBy(journal.alone(MAX_BATCH_PATHS), (file) => entryHash(file, index) ?? "");
  for (const [hash, files] of additions) {
    const known = lineOf(hash);
    // Others wait for their narinfo.
    if (known !== undefined && !candidates.has(hash)) consider(hash, entryOf(known).info, files, known);
  }

  await dropIncomplete(candidates, waiting, lineOf, elsewhere);
  return {
    entries: [...candidates.values()],
    restated: closureOf(candidates, lineOf),
    done,
    orphans,
    waiting,
    more,
  };
}

function isNarInfo({ kind }: JournalFile): boolean {
  return kind === "narinfo";
}

/** What the lines of a batch name and the journal has. */
export function piecesOf(batch: Batch, journal: Journal): Piece[] {
  return batch.entries.flatMap(({ files }) =>
    files.flatMap(({ digest, size }) =>
      digest === null ? [] : [{ digest, size, file: journal.blobFile(digest) }],
    ),
  );
}

/**
 * The lines of the generation, in the order of store hashes.
 * @param places where the journal's files went
 * @param now seconds since 1970
 */
export function linesOf(
  { entries, restated }: Batch,
  places: ReadonlyMap<Digest, readonly Part[]>,
  now: number,
): EntryLine[] {
  const lines = entries.map((entry) => encodeEntry(newEntry(entry, places, now)));
  return [...lines, ...restated].sort((a, b) => (a.storeHash < b.storeHash ? -1 : 1));
}

/** Paths that no other in the batch refers to, by their base names. */
export function rootsOf({ entries }: Batch): Record<string, string> {
  const referred = new Set(
    entries.flatMap(({ info }) => info.references.filter((name) => name !== baseName(info.storePath))),
  );
  return Object.fromEntries(
    entries
      .map(({ info }) => [baseName(info.storePath), info.storePath] as const)
      .filter(([name]) => !referred.has(name))
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

export function fileName({ url }: Pick<NarInfo, "url">): string {
  return url.slice(url.lastIndexOf("/") + 1);
}

export function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** Where the index has a NAR. One whose entries have left it may be gone from the store. */
export function narParts(
  index: IndexReader,
  file: string,
  lost: ReadonlySet<Digest> = new Set(),
): readonly Part[] | undefined {
  const located = index.nar(file);
  if (located?.narinfo === undefined || located.parts.some(({ blob }) => lost.has(blob))) return undefined;
  return located.parts;
}

/** The store hash of the entry that a file belongs to, as far as the index knows. */
function entryHash({ hash, nar }: JournalFile, index: IndexReader): string | undefined {
  if (hash !== null || nar === null) return hash ?? undefined;
  const narinfo = index.nar(nar)?.narinfo;
  return narinfo === undefined ? undefined : storeHashOf(parseNarInfo(narinfo, nar).storePath);
}

/** Takes out entries whose references are nowhere, and then those that refer to them. */
async function dropIncomplete(
  candidates: Map<string, BatchEntry>,
  waiting: { path: string; reason: string }[],
  lineOf: (hash: string) => EntryLine | undefined,
  elsewhere: Elsewhere,
): Promise<void> {
  const outside = new Map<string, string>();
  for (const { info } of candidates.values()) {
    for (const reference of info.references) {
      const hash = storeHashOf(reference);
      if (!lineOf(hash) && !candidates.has(hash)) outside.set(hash, reference);
    }
  }
  const asked = [...outside];
  const found = await mapConcurrently(asked, ASK_AT_ONCE, ([hash, reference]) => elsewhere(hash, reference));
  const had = new Set(asked.flatMap(([hash], index) => (found[index] ? [hash] : [])));
  for (let changed = true; changed; ) {
    changed = false;
    for (const [hash, { info }] of candidates) {
      const missing = info.references.find((reference) => {
        const target = storeHashOf(reference);
        return !candidates.has(target) && !had.has(target) && !lineOf(target);
      });
      if (missing === undefined) continue;
      candidates.delete(hash);
      waiting.push({ path: info.storePath, reason: `it refers to ${missing}, which is in no cache now` });
      changed = true;
    }
  }
}

/** The lines of everything that the entries refer to, directly or not, and that the index has. */
function closureOf(
  candidates: ReadonlyMap<string, BatchEntry>,
  lineOf: (hash: string) => EntryLine | undefined,
): EntryLine[] {
  const restated = new Map<string, EntryLine>();
  const open = [...candidates.values()].flatMap(({ info }) => info.references.map(storeHashOf));
  for (let hash = open.pop(); hash !== undefined; hash = open.pop()) {
    if (candidates.has(hash) || restated.has(hash)) continue;
    const line = lineOf(hash);
    if (line === undefined) continue;
    restated.set(hash, line);
    open.push(...parseNarInfo(line.narinfo, hash).references.map(storeHashOf));
  }
  return [...restated.values()];
}

function newEntry(
  { info, files, parts, known }: BatchEntry,
  places: ReadonlyMap<Digest, readonly Part[]>,
  now: number,
): Entry {
  const old = known && entryOf(known);
  // The same path with another NAR is another build: nothing of the old one is true of it.
  const kept = old?.info.narHash === info.narHash ? old : undefined;
  const placeOf = (file: JournalFile | undefined) => (file?.digest ? places.get(file.digest) : undefined);
  const placed: [string, Attachment][] = files
    .filter(({ kind }) => kind === "attached")
    .map((file) => [file.path, file.text === null ? { part: first(placeOf(file)) } : { text: file.text }]);
  const attached = Object.fromEntries(
    [...Object.entries(kept?.attached ?? {}), ...placed].slice(-MAX_ATTACHMENTS),
  );
  const listing = placeOf(files.find(({ kind }) => kind === "listing"))?.[0] ?? kept?.listing;
  return {
    info,
    parts: placeOf(files.find(({ kind }) => kind === "nar")) ?? parts ?? [],
    ...(listing && { listing }),
    ...(Object.keys(attached).length > 0 && { attached }),
    // Later than the line that it replaces, whatever the clocks: the later one is shown.
    added: Math.max(now, (known?.added ?? -1) + 1),
  };
}

function first(parts: readonly Part[] | undefined): Part {
  const [part] = parts ?? [];
  if (part === undefined) throw new Error("a file of the journal was not stored");
  return part;
}

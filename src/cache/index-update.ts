/**
 * The changes of one transaction on the local index.
 */
import type { Database, Statement } from "bun:sqlite";
import { NixcacheError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import { type EntryLine, filesOf } from "./entry.ts";
import type { Generation } from "./index-layer.ts";
import type { ViewState } from "./index-reader.ts";
import type { LayerFile } from "./layer-file.ts";
import type { LayerFolder } from "./layer-folder.ts";
import { firstRank } from "./layer-table.ts";
import type { LayerText, LayerWriter } from "./layer-writer.ts";
import { encodeRecord } from "./record.ts";
import type { GenerationId, GenerationName } from "./tags.ts";

/** Nix keeps a narinfo for 30 days, so the URLs in it must work for longer than that. */
const FORMER_NAR_DAYS = 35;

/** A dead tag is remembered for longer than its segment's tag can still be listed. */
const DEAD_DAYS = 90;

const DAY_MS = 86_400_000;

export class IndexUpdate implements Disposable {
  readonly #db: Database;
  readonly #folder: LayerFolder;
  readonly #session: string;
  /** Files of layers that are being added. */
  readonly #writers = new Map<number, LayerWriter>();
  /** Files of layers that were added. */
  readonly #written: LayerFile[] = [];
  readonly #insertAttached: Statement<unknown, [string, string, number]>;

  /** @param session see `session.ts` */
  constructor(db: Database, folder: LayerFolder, session: string) {
    this.#db = db;
    this.#folder = folder;
    this.#session = session;
    this.#insertAttached = db.query("INSERT OR REPLACE INTO attached (path, hash, layer) VALUES (?, ?, ?)");
  }

  /** Files of layers that were added and finished. */
  get written(): readonly LayerFile[] {
    return this.#written;
  }

  /** Adds an empty layer and returns its id. */
  addLayer(digest: Digest, size: number): number {
    const { lastInsertRowid } = this.#db.run("INSERT INTO layer (digest, size, session) VALUES (?, ?, ?)", [
      digest,
      size,
      this.#session,
    ]);
    const id = Number(lastInsertRowid);
    this.#writers.set(
      id,
      this.#folder.write(digest, (line) => this.#addAttached(id, line)),
    );
    return id;
  }

  addEntry(layer: number, line: EntryLine): void {
    this.#writerOf(layer).add(line);
  }

  /** Adds all entries of a layer by its text. @throws `corrupt` */
  addText(layer: number, chunks: AsyncIterable<Uint8Array>, where: string): Promise<LayerText> {
    return this.#writerOf(layer).readText(chunks, where);
  }

  /** Takes a layer out again that was being added. */
  dropLayer(layer: number): void {
    this.#writerOf(layer).abort();
    this.#writers.delete(layer);
    this.#db.run("DELETE FROM attached WHERE layer = ?", [layer]);
    this.#db.run("DELETE FROM layer WHERE id = ?", [layer]);
  }

  /** Makes the files of layers that were added whole. They take no entries any more. */
  finish(): void {
    for (const [id, writer] of this.#writers) {
      this.#written.push(this.#folder.finish(writer));
      this.#writers.delete(id);
    }
  }

  /** Lets go of the files; what was not finished is removed. */
  [Symbol.dispose](): void {
    for (const writer of this.#writers.values()) writer.abort();
    for (const file of this.#written) file.release();
  }

  #writerOf(layer: number): LayerWriter {
    const writer = this.#writers.get(layer);
    if (writer === undefined) throw new NixcacheError("internal", `layer ${layer} takes no entries`);
    return writer;
  }

  #addAttached(layer: number, { storeHash, rest }: EntryLine): void {
    for (const path of Object.keys(filesOf(rest, storeHash).attached ?? {})) {
      this.#insertAttached.run(path, storeHash, layer);
    }
  }

  /** Which generations a layer holds or covers; replaces what was known. */
  setGenerations(layer: number, generations: readonly Generation[]): void {
    this.#db.run("DELETE FROM generation WHERE layer = ?", [layer]);
    const insert = this.#db.query("INSERT INTO generation (layer, name, record) VALUES (?, ?, ?)");
    for (const { name, record } of generations) insert.run(layer, name, JSON.stringify(encodeRecord(record)));
  }

  /** @param signatures of a root layer */
  setPosition(layer: number, position: number | null, signatures?: string): void {
    const change = "UPDATE layer SET position = ?, signatures = ? WHERE id = ?";
    this.#db.run(change, [position, signatures ?? null, layer]);
  }

  /** Removes layers; NARs that no other layer has stay known for clients that remember them. */
  removeLayers(layers: readonly number[], now: number): void {
    if (layers.length > 0) {
      this.finish();
      this.#addFormer(new Set(layers), now);
      const ids = layers.join(",");
      for (const table of ["generation", "attached"])
        this.#db.run(`DELETE FROM ${table} WHERE layer IN (${ids})`);
      this.#db.run(`DELETE FROM layer WHERE id IN (${ids})`);
    }
    this.#db.run("DELETE FROM former WHERE gone < ?", [now - FORMER_NAR_DAYS * DAY_MS]);
  }

  #addFormer(removed: ReadonlySet<number>, now: number): void {
    const rows = this.#db.query<{ id: number; digest: Digest }, []>("SELECT id, digest FROM layer").all();
    using open = new DisposableStack();
    const files = rows.map(({ id, digest }) => {
      const file = open.adopt(this.#folder.open(digest), (opened) => opened.release());
      return { isRemoved: removed.has(id), file };
    });
    const insert = this.#db.query(
      "INSERT OR REPLACE INTO former (file, hash, rest, gone) VALUES (?, ?, ?, ?)",
    );
    const kept = files.flatMap(({ file, isRemoved }) => (isRemoved ? [] : [file]));
    for (const { file, isRemoved } of files) {
      if (!isRemoved) continue;
      for (const rank of ranksNotIn(file, kept)) {
        const line = lineOrBroken(file, rank);
        if (line !== undefined) insert.run(line.file, line.storeHash, line.rest, now);
      }
    }
  }

  addDead(ids: Iterable<GenerationId>, now: number): void {
    const insert = this.#db.query("INSERT OR IGNORE INTO dead (id, seen) VALUES (?, ?)");
    for (const id of ids) insert.run(id, now);
    this.#db.run("DELETE FROM dead WHERE seen < ?", [now - DEAD_DAYS * DAY_MS]);
  }

  setState(state: ViewState): void {
    this.#store("view", state);
  }

  /** Apart from the state, which is read for each NAR: these may be many. */
  setUnsigned(names: readonly GenerationName[]): void {
    this.#store("unsigned", names);
  }

  #store(name: "view" | "unsigned", value: unknown): void {
    this.#db.run("INSERT OR REPLACE INTO state (name, value) VALUES (?, ?)", [name, JSON.stringify(value)]);
  }
}

/** Ranks of paths whose NAR none of the others has for them. By 82 bits of both, so that no line need be read. */
function* ranksNotIn(file: LayerFile, others: readonly LayerFile[]): Generator<number> {
  const { keys, fileKeys } = file.table;
  for (const [rank, key] of keys.entries()) {
    const isThere = others.some(({ table }) => {
      for (let other = firstRank(table, key); table.keys[other] === key; other++) {
        if (table.fileKeys[other] === fileKeys[rank]) return true;
      }
      return false;
    });
    if (!isThere) yield rank;
  }
}

/** Undefined for a line that nobody could have used. */
function lineOrBroken(file: LayerFile, rank: number): EntryLine | undefined {
  try {
    return file.lineAt(rank);
  } catch (error) {
    if (error instanceof NixcacheError && error.code === "corrupt") return undefined;
    throw error;
  }
}

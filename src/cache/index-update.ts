/**
 * The changes of one transaction on the local index.
 */
import type { Database, Statement } from "bun:sqlite";
import type { Digest } from "../oci/digest.ts";
import { type EntryLine, filesOf } from "./entry.ts";
import type { Generation } from "./index-layer.ts";
import type { ViewState } from "./index-reader.ts";
import { encodeRecord } from "./record.ts";
import type { GenerationId } from "./tags.ts";

/** Nix keeps a narinfo for 30 days, so the URLs in it must work for longer than that. */
const FORMER_NAR_DAYS = 35;

/** A dead tag is remembered for longer than its segment's tag can still be listed. */
const DEAD_DAYS = 90;

const DAY_MS = 86_400_000;

/** Of the table of entries. */
export const ENTRY_INDEXES = [
  { name: "entry_hash", create: "CREATE UNIQUE INDEX entry_hash ON entry (hash, layer)" },
  { name: "entry_file", create: "CREATE INDEX entry_file ON entry (file)" },
  { name: "entry_layer", create: "CREATE INDEX entry_layer ON entry (layer)" },
] as const;

export class IndexUpdate {
  readonly #db: Database;
  /**
   * The last hash of each layer, while an empty table is being filled: its indexes are made at the end, by sorting, in
   * a third of the time. Undefined: they are there.
   */
  #lastHashes: Map<number, string> | undefined;
  #hasAdded = false;
  readonly #insertEntry: Statement<unknown, [string, number, number, string, string, string]>;

  readonly #insertAttached: Statement<unknown, [string, string, number]>;

  constructor(db: Database) {
    this.#db = db;
    this.#insertEntry = db.query(
      "INSERT OR REPLACE INTO entry (hash, layer, added, file, narinfo, rest) VALUES (?, ?, ?, ?, ?, ?)",
    );
    this.#insertAttached = db.query("INSERT OR REPLACE INTO attached (path, hash, layer) VALUES (?, ?, ?)");
  }

  /** Adds an empty layer and returns its id. */
  addLayer(digest: Digest, size: number): number {
    const { lastInsertRowid } = this.#db.run("INSERT INTO layer (digest, size) VALUES (?, ?)", [
      digest,
      size,
    ]);
    return Number(lastInsertRowid);
  }

  addEntry(layer: number, line: EntryLine): void {
    if (!this.#hasAdded) this.#beginAdding();
    if (this.#lastHashes !== undefined) {
      // Layers are sorted; in one that is not a path may come twice.
      if (line.storeHash > (this.#lastHashes.get(layer) ?? "")) this.#lastHashes.set(layer, line.storeHash);
      else this.finish();
    }
    this.#insertEntry.run(line.storeHash, layer, line.added, line.file, line.narinfo, line.rest);
    // Looked for in the text: most lines have none, and need not be parsed again.
    if (line.rest.includes('"attached":')) this.#addAttached(layer, line);
  }

  /** Makes what is left out while entries are added. Nothing may be asked of the entries before. */
  finish(): void {
    if (this.#lastHashes === undefined) return;
    this.#lastHashes = undefined;
    for (const { create } of ENTRY_INDEXES) this.#db.run(create);
  }

  #beginAdding(): void {
    this.#hasAdded = true;
    if (this.#db.query("SELECT 1 FROM entry LIMIT 1").get() !== null) return;
    for (const { name } of ENTRY_INDEXES) this.#db.run(`DROP INDEX ${name}`);
    this.#lastHashes = new Map();
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

  setPosition(layer: number, position: number | null): void {
    this.#db.run("UPDATE layer SET position = ? WHERE id = ?", [position, layer]);
  }

  /** Removes layers; NARs that no other layer has stay known for clients that remember them. */
  removeLayers(layers: readonly number[], now: number): void {
    if (layers.length > 0) {
      this.finish();
      const ids = layers.join(",");
      this.#db.run(
        `INSERT OR REPLACE INTO former (file, hash, rest, gone)
         SELECT file, hash, rest, ? FROM entry AS e WHERE layer IN (${ids}) AND NOT EXISTS (
           SELECT 1 FROM entry AS other
           WHERE other.hash = e.hash AND other.file = e.file AND other.layer NOT IN (${ids})
         )`,
        [now],
      );
      for (const table of ["entry", "generation", "attached"])
        this.#db.run(`DELETE FROM ${table} WHERE layer IN (${ids})`);
      this.#db.run(`DELETE FROM layer WHERE id IN (${ids})`);
    }
    this.#db.run("DELETE FROM former WHERE gone < ?", [now - FORMER_NAR_DAYS * DAY_MS]);
  }

  addDead(ids: Iterable<GenerationId>, now: number): void {
    const insert = this.#db.query("INSERT OR IGNORE INTO dead (id, seen) VALUES (?, ?)");
    for (const id of ids) insert.run(id, now);
    this.#db.run("DELETE FROM dead WHERE seen < ?", [now - DEAD_DAYS * DAY_MS]);
  }

  setState(state: ViewState): void {
    this.#db.run("INSERT OR REPLACE INTO state (name, value) VALUES ('view', ?)", [JSON.stringify(state)]);
  }
}

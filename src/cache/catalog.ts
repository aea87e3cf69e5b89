/**
 * What is in the index, for people: names, sizes, publishes.
 *
 * The index is made for look-ups by hash. Names are inside narinfos, some 700 bytes a path, so they are read out
 * once into a compact temporary table, which SQLite keeps in a file that has no name and ends with the process.
 * Everything that passes over all paths goes in slices with a turn of the event loop in between, so that Nix's
 * look-ups, which come first, never wait for more than a slice.
 */
import { Database, type Statement } from "bun:sqlite";
import { STORE_DIR, STORE_HASH_LENGTH } from "../nar/store-path.ts";
import { type KeyRing, shownLine } from "./builds.ts";
import type { IndexDatabase } from "./database.ts";
import type { Generation } from "./index-layer.ts";
import type { LayerFile } from "./layer-file.ts";
import { linesAt, mergeLayers } from "./layer-merge.ts";
import type { PublishRecord } from "./record.ts";
import type { GenerationName } from "./tags.ts";

/** Lines of the index in one slice: under a millisecond, and a few where the disk is slow. */
const LINES_PER_SLICE = 40;

/** Rows of the table of names in one slice, about a millisecond. */
const NAMES_PER_SLICE = 5_000;

/** The newest publishes whose keys are told. */
const PUBLISHES_WITH_KEYS = 1_000;

/** Text of the records in one page of publishes, in UTF-16 units: one with many outputs may have 4 MiB. */
const PAGE_RECORD_LENGTH = 1024 * 1024;

/** Words of a search, which may not make the scan long. */
export const MAX_SEARCH_WORDS = 8;

export interface CatalogPath {
  /** The store hash. */
  readonly hash: string;
  readonly name: string;
  readonly narSize: number;
  /** Bytes of the compressed NAR; null where the narinfo does not say. */
  readonly fileSize: number | null;
  /** When its line was made, in seconds since 1970. */
  readonly added: number;
}

export interface Totals {
  readonly paths: number;
  readonly narSize: number;
  readonly fileSize: number;
}

export interface Search {
  /** Words that all must be in the name, whatever their case; a store path or its hash finds that path. */
  readonly text: string;
  /** The last path of the page before. */
  readonly after?: Pick<CatalogPath, "hash" | "name"> | undefined;
  readonly limit: number;
}

export interface SearchPage {
  /** In the order of names. */
  readonly paths: readonly CatalogPath[];
  readonly hasMore: boolean;
  /** Paths that match, in all pages. */
  readonly matches: number;
}

export type Order = "name" | "size" | "added" | "closure";

/** Those with the most, or the newest, come first. */
const ORDERS: Readonly<Record<Order, string>> = {
  name: "name",
  size: "narSize DESC",
  added: "added DESC",
  closure: "closure DESC",
};

/** What of the local index is read. */
export type CatalogIndex = Pick<IndexDatabase, "path" | "view">;

/** Lets others have their turn. Rejects to stop what is under way. */
export type Pause = () => Promise<void>;

export class Catalog implements Disposable {
  readonly #db: Database;
  /** The layers as they were when it was made. */
  readonly #files: readonly LayerFile[];
  readonly #keyRing: KeyRing;
  /** Of a cache of nixcache-oci that is shown as it is: it has no publish records. */
  readonly #v1Keys: readonly string[];
  #totals: Totals | undefined;
  #progress = 0;
  #publishCount: number | undefined;
  #latest: readonly Generation[] | undefined;
  #keys: readonly string[] | undefined;

  constructor(index: CatalogIndex) {
    this.#db = new Database(index.path, { readonly: true });
    this.#v1Keys = index.view.state().v1?.keys ?? [];
    this.#files = index.view.files.map((file) => file.retain());
    this.#keyRing = index.view.keys();
    this.#db.run("PRAGMA temp_store = FILE");
    this.#db.run(
      `CREATE TEMP TABLE path (
         id INTEGER PRIMARY KEY, hash TEXT NOT NULL, name TEXT NOT NULL,
         narSize INTEGER NOT NULL, fileSize INTEGER, added INTEGER NOT NULL, closure INTEGER
       )`,
    );
  }

  /** What is there in all; undefined until the names have been read. */
  get totals(): Totals | undefined {
    return this.#totals;
  }

  /** The share of the names that has been read, from 0 to 1. */
  get progress(): number {
    return this.#progress;
  }

  [Symbol.dispose](): void {
    this.#db.close();
    for (const file of this.#files) file.release();
  }

  /** Reads the names, from one state of the index. */
  async readNames(pause: Pause): Promise<void> {
    const insert = this.#db.query(
      "INSERT INTO temp.path (hash, name, narSize, fileSize, added) VALUES (?, ?, ?, ?, ?)",
    );
    const totals = { paths: 0, narSize: 0, fileSize: 0 };
    this.#db.run("BEGIN");
    try {
      let inSlice = 0;
      for (const places of mergeLayers(this.#files)) {
        const line = shownLine(linesAt(places), () => this.#keyRing);
        if (line === undefined) continue;
        const { name, narSize, fileSize } = readSizes(line.narinfo);
        insert.run(line.storeHash, name, narSize, fileSize, line.added);
        totals.paths++;
        totals.narSize += narSize;
        totals.fileSize += fileSize ?? 0;
        if (++inSlice < LINES_PER_SLICE) continue;
        inSlice = 0;
        this.#progress = placeOfHash(line.storeHash);
        await pause();
      }
      await pause();
    } finally {
      this.#db.run("COMMIT");
    }
    this.#progress = 1;
    this.#totals = totals;
  }

  /** One page of the paths whose names have all words of a text. Passes over all names, in slices. */
  async search({ text, after, limit }: Search, pause: Pause): Promise<SearchPage> {
    const { condition, values } = matching(text);
    const count = this.#db.query<{ n: number }, (string | number)[]>(
      `SELECT count(*) AS n FROM temp.path WHERE id > ? AND id <= ? ${condition}`,
    );
    const select = this.#db.query<CatalogPath, (string | number)[]>(
      `SELECT hash, name, narSize, fileSize, added FROM temp.path WHERE id > ? AND id <= ? ${condition}
       AND (name, hash) > (?, ?) AND (? = '' OR (name, hash) < (?, ?)) ORDER BY name, hash LIMIT ?`,
    );
    let matches = 0;
    // The first of the page and one more, of all slices so far.
    let first: CatalogPath[] = [];
    const size = this.#totals?.paths ?? 0;
    for (let id = 0; id < size; id += NAMES_PER_SLICE) {
      const slice = [id, id + NAMES_PER_SLICE, ...values];
      const inSlice = values.length === 0 ? Math.min(size - id, NAMES_PER_SLICE) : countOf(count, slice);
      matches += inSlice;
      if (inSlice > 0) {
        // Only what is before the last of a full page can still come into it.
        const last = first.length > limit ? first[limit] : undefined;
        const before = [last?.hash ?? "", last?.name ?? "", last?.hash ?? ""];
        const found = select.all(...slice, after?.name ?? "", after?.hash ?? "", ...before, limit + 1);
        if (found.length > 0) first = [...first, ...found].sort(byName).slice(0, limit + 1);
      }
      await pause();
    }
    return { paths: first.slice(0, limit), hasMore: first.length > limit, matches };
  }

  /** What the paths that match have together. Passes over all names at once. */
  totalsOf(text: string): Totals {
    const { condition, values } = matching(text);
    const query = `SELECT count(*) AS paths, coalesce(sum(narSize), 0) AS narSize,
      coalesce(sum(fileSize), 0) AS fileSize FROM temp.path WHERE 1 ${condition}`;
    return this.#db.query<Totals, string[]>(query).get(...values) as Totals;
  }

  /** The paths that match, one by one, sorted as a whole, in a file where they are many. */
  *list(text: string, order: Order, limit = -1): Generator<CatalogPath> {
    const { condition, values } = matching(text);
    const query = `SELECT hash, name, narSize, fileSize, added FROM temp.path WHERE 1 ${condition}
      ORDER BY ${ORDERS[order]}, name, hash LIMIT ?`;
    yield* this.#db.query<CatalogPath, (string | number)[]>(query).iterate(...values, limit);
  }

  /** Takes down how large the closures of the paths that match are, for the order by it. */
  async measureClosures(text: string, sizeOf: (hash: string) => number, pause: Pause): Promise<void> {
    const { condition, values } = matching(text);
    const rows = this.#db.query<{ id: number; hash: string }, (string | number)[]>(
      `SELECT id, hash FROM temp.path WHERE id > ? ${condition} ORDER BY id LIMIT ${LINES_PER_SLICE}`,
    );
    const update = this.#db.query("UPDATE temp.path SET closure = ? WHERE id = ?");
    this.#db.run("BEGIN");
    try {
      for (let last = 0, read = LINES_PER_SLICE; read === LINES_PER_SLICE; ) {
        const slice = rows.all(last, ...values);
        for (const { id, hash } of slice) update.run(sizeOf(hash), id);
        read = slice.length;
        last = slice.at(-1)?.id ?? last;
        await pause();
      }
    } finally {
      this.#db.run("COMMIT");
    }
  }

  /** Publishes, the newest first: at most `limit`, and fewer where their records are long. */
  publishes(limit: number, before?: GenerationName): { publishes: Generation[]; hasMore: boolean } {
    const rows = this.#db
      .query<{ name: string; layer: number }, [string, number]>(
        `SELECT name, min(layer) AS layer FROM generation WHERE name < ?
         GROUP BY name ORDER BY name DESC LIMIT ?`,
      )
      .all(before ?? "~", limit + 1);
    const record = this.#db.query<{ record: string }, [number, string]>(
      "SELECT record FROM generation WHERE layer = ? AND name = ?",
    );
    const publishes: Generation[] = [];
    let length = 0;
    for (const { name, layer } of rows.slice(0, limit)) {
      const text = record.get(layer, name)?.record ?? "{}";
      length += text.length;
      if (length > PAGE_RECORD_LENGTH && publishes.length > 0) break;
      publishes.push({ name, record: JSON.parse(text) as PublishRecord });
    }
    return { publishes, hasMore: rows.length > publishes.length };
  }

  /** Number of publishes that make up the index. */
  publishCount(): number {
    const query = "SELECT count(DISTINCT name) AS n FROM generation";
    this.#publishCount ??= this.#db.query<{ n: number }, []>(query).get()?.n ?? 0;
    return this.#publishCount;
  }

  /** The newest publish. */
  latest(): Generation | undefined {
    this.#latest ??= this.publishes(1).publishes;
    return this.#latest[0];
  }

  /** Public keys that publishers have signed with, those of the newest publishes first. */
  keys(): readonly string[] {
    this.#keys ??= this.#db
      .query<{ key: string }, [number]>(
        `SELECT value AS key FROM (
           SELECT name, min(layer) AS layer FROM generation GROUP BY name ORDER BY name DESC LIMIT ?
         ) JOIN generation USING (layer, name), json_each(record, '$.keys')
         GROUP BY value ORDER BY max(name) DESC, value`,
      )
      .all(PUBLISHES_WITH_KEYS)
      .map(({ key }) => key)
      .concat(this.#v1Keys);
    return this.#keys;
  }
}

/** The condition on a row, and its values. */
function matching(text: string): { condition: string; values: string[] } {
  const words = text.split(/\s+/).filter((word) => word !== "");
  let condition = "";
  const values: string[] = [];
  for (const word of words.slice(0, MAX_SEARCH_WORDS)) {
    const [, hash] = STORE_PATH.exec(word) ?? [];
    condition += hash === undefined ? " AND name LIKE ? ESCAPE '\\'" : " AND hash = ?";
    values.push(hash ?? `%${word.replace(/[\\%_]/g, "\\$&")}%`);
  }
  return { condition, values };
}

/** A store path, a file inside one, or the hash alone. */
const STORE_PATH = new RegExp(
  `^(?:${STORE_DIR}/)?([0-9a-df-np-sv-z]{${STORE_HASH_LENGTH}})(?:-[^/]*(?:/.*)?)?$`,
);

function countOf(count: Statement<{ n: number }, (string | number)[]>, slice: (string | number)[]): number {
  return count.get(...slice)?.n ?? 0;
}

/** As SQLite orders them: names and hashes are ASCII. */
function byName(a: CatalogPath, b: CatalogPath): number {
  if (a.name !== b.name) return a.name < b.name ? -1 : 1;
  return a.hash < b.hash ? -1 : 1;
}

/** Name and sizes in a narinfo that was checked when it was read. */
export function readSizes(narinfo: string): Pick<CatalogPath, "name" | "narSize" | "fileSize"> {
  const fileSize = field(narinfo, "FileSize");
  return {
    name: (field(narinfo, "StorePath") ?? "").slice(STORE_DIR.length + STORE_HASH_LENGTH + 2),
    narSize: Number(field(narinfo, "NarSize") ?? 0),
    fileSize: fileSize === undefined ? null : Number(fileSize),
  };
}

function field(narinfo: string, name: string): string | undefined {
  const key = `${name}: `;
  const start = narinfo.startsWith(key) ? 0 : narinfo.indexOf(`\n${key}`) + 1;
  if (start === 0 && !narinfo.startsWith(key)) return undefined;
  const end = narinfo.indexOf("\n", start);
  return narinfo.slice(start + key.length, end === -1 ? undefined : end);
}

const DIGITS = "0123456789abcdfghijklmnpqrsvwxyz";

/** Where a hash stands among all that there could be, from 0 to 1: they are evenly spread. */
function placeOfHash(hash: string): number {
  let place = 0;
  for (let i = 0; i < 3; i++) place = place * 32 + DIGITS.indexOf(hash[i] ?? "0");
  return place / 32 ** 3;
}

/**
 * The local copy of a cache's index: the union of the layers that the reader chose, in SQLite.
 *
 * Rows are keyed by layer, and layers come and go in one transaction, so a process that dies leaves the view
 * as it was. Look-ups use a connection of their own and go on, on the old view, while another connection
 * (or another process) loads. The file holds nothing that cannot be read again: a damaged one is thrown away.
 */
import { Database, SQLiteError } from "bun:sqlite";
import { mkdirSync, rmSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { messageOf, NixcacheError } from "../errors.ts";
import { IndexReader } from "./index-reader.ts";
import { ENTRY_INDEXES, IndexUpdate } from "./index-update.ts";

/** Changes with the tables, and with what is kept of a record; a file of another version is thrown away. */
const SCHEMA_VERSION = 6;

const SCHEMA = `
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE layer (
  id INTEGER PRIMARY KEY,
  digest TEXT NOT NULL UNIQUE,
  size INTEGER NOT NULL,
  -- place in the root's stack from below, or NULL for a segment's own layer
  position INTEGER
);
-- the generations that a layer holds or covers
CREATE TABLE generation (
  layer INTEGER NOT NULL, name TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (layer, name)
) WITHOUT ROWID;
-- with rowids: a row has 1 KB, and a table without them would have such rows in the inner nodes of its tree
CREATE TABLE entry (
  id INTEGER PRIMARY KEY, hash TEXT NOT NULL, layer INTEGER NOT NULL, added INTEGER NOT NULL, file TEXT NOT NULL,
  narinfo TEXT NOT NULL, rest TEXT NOT NULL
);
${ENTRY_INDEXES.map(({ create }) => `${create};`).join("\n")}
-- which entries have a file that is served under path; the file itself is in their rest
CREATE TABLE attached (
  path TEXT NOT NULL, hash TEXT NOT NULL, layer INTEGER NOT NULL, PRIMARY KEY (path, hash, layer)
) WITHOUT ROWID;
CREATE INDEX attached_layer ON attached (layer);
-- NARs of entries that have left the view, for clients that remember their URLs
CREATE TABLE former (
  file TEXT NOT NULL, hash TEXT NOT NULL, rest TEXT NOT NULL, gone INTEGER NOT NULL, PRIMARY KEY (file, hash)
) WITHOUT ROWID;
-- generations known to be over; a dead tag that was seen once counts for ever
CREATE TABLE dead (id TEXT PRIMARY KEY, seen INTEGER NOT NULL) WITHOUT ROWID;
`;

/** What was written goes from the log into the file this much later, in milliseconds: first come those who wait for it. */
const CHECKPOINT_AFTER_MS = 500;

export class IndexDatabase {
  readonly path: string;
  #checkpoint: ReturnType<typeof setTimeout> | undefined;
  /** Set while a transaction of look-ups is open. */
  #turn: ReturnType<typeof setImmediate> | undefined;
  #connection: Database;
  /** The file that the connection has open: somebody may have removed or replaced it since. */
  #inode: number;
  #view: IndexReader;

  private constructor(path: string) {
    this.path = path;
    this.#connection = openFresh(path);
    this.#view = this.#viewOf(this.#connection);
    this.#inode = inodeOf(path);
  }

  /** The view as of the last update, by any process. */
  get view(): IndexReader {
    return this.#view;
  }

  /** Opens the file, making it and its folder where needed. @throws `filesystem` when it cannot be written. */
  static open(path: string): IndexDatabase {
    try {
      return new IndexDatabase(path);
    } catch (cause) {
      throw databaseError(path, cause);
    }
  }

  /** Gives `read` a view that stays the same until it is done, whoever updates in the meantime. */
  async snapshot<T>(read: (view: IndexReader) => Promise<T>): Promise<T> {
    const connection = new Database(this.path, { readonly: true });
    try {
      connection.run("BEGIN");
      return await read(new IndexReader(connection));
    } finally {
      connection.close();
    }
  }

  /**
   * Runs `change` as the one writer among all processes, in one transaction: all of it happens, or nothing.
   * `wait` is called while another process writes.
   */
  async update<T>(change: (update: IndexUpdate) => Promise<T>, wait: () => Promise<void>): Promise<T> {
    if (inodeOf(this.path) !== this.#inode) this.#reopen();
    let write: Database | undefined;
    try {
      write = this.#openWriter();
      await this.#begin(write, wait);
      try {
        const update = new IndexUpdate(write);
        const result = await change(update);
        update.finish();
        write.run("COMMIT");
        this.#endTurn();
        this.#checkpoint ??= setTimeout(() => this.#emptyLog(), CHECKPOINT_AFTER_MS).unref();
        return result;
      } catch (error) {
        if (write.inTransaction) write.run("ROLLBACK");
        throw error;
      }
    } catch (error) {
      if (isDamaged(error)) {
        removeFiles(this.path);
        throw new IndexDamaged(this.path, error);
      }
      throw error instanceof SQLiteError ? databaseError(this.path, error) : error;
    } finally {
      write?.close();
    }
  }

  close(): void {
    clearTimeout(this.#checkpoint);
    this.#endTurn();
    this.#connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * A view whose look-ups share one transaction in each turn of the event loop: one of its own would lock the file and
   * let it go again, which takes as long as the look-up.
   */
  #viewOf(connection: Database): IndexReader {
    return new IndexReader(connection, () => {
      if (this.#turn !== undefined) return;
      connection.run("BEGIN");
      this.#turn = setImmediate(() => this.#endTurn());
    });
  }

  #endTurn(): void {
    if (this.#turn === undefined) return;
    clearImmediate(this.#turn);
    this.#turn = undefined;
    if (this.#connection.inTransaction) this.#connection.run("COMMIT");
  }

  #emptyLog(): void {
    this.#checkpoint = undefined;
    this.#endTurn();
    try {
      this.#connection.run("PRAGMA wal_checkpoint(PASSIVE)");
    } catch (error) {
      // Somebody has removed or damaged the file: the next update says so.
      if (!(error instanceof SQLiteError)) throw error;
    }
  }

  #reopen(): void {
    this.#endTurn();
    try {
      this.#connection.close();
      this.#connection = openFresh(this.path);
    } catch (cause) {
      throw databaseError(this.path, cause);
    }
    this.#view = this.#viewOf(this.#connection);
    this.#inode = inodeOf(this.path);
  }

  #openWriter(): Database {
    const write = new Database(this.path, { readwrite: true, create: false });
    try {
      write.run("PRAGMA synchronous = NORMAL");
      write.run("PRAGMA cache_size = -32768");
      write.run("PRAGMA wal_autocheckpoint = 0");
      return write;
    } catch (error) {
      write.close();
      throw error;
    }
  }

  async #begin(write: Database, wait: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        write.run("BEGIN IMMEDIATE");
        return;
      } catch (error) {
        if (!(error instanceof SQLiteError) || error.code !== "SQLITE_BUSY") throw error;
        await wait();
      }
    }
  }
}

/** The index was damaged and has been removed: whoever updates again starts with an empty one. */
export class IndexDamaged extends NixcacheError {
  constructor(path: string, cause: unknown) {
    super("filesystem", `the local index ${path} was damaged and has been removed: ${messageOf(cause)}`, {
      hint: "Run it again: the index is read anew from the cache.",
      cause,
    });
  }
}

/** Opens the file, made anew where it is absent, damaged, or of another version. */
function openFresh(path: string): Database {
  mkdirSync(dirname(path), { recursive: true });
  try {
    return openCurrent(path);
  } catch (error) {
    if (!isDamaged(error)) throw error;
    removeFiles(path);
    return openCurrent(path);
  }
}

function removeFiles(path: string): void {
  for (const suffix of ["", "-wal", "-shm"]) rmSync(path + suffix, { force: true });
}

/** 0 for a file that is not there. */
function inodeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.ino ?? 0;
}

function openCurrent(path: string): Database {
  const db = new Database(path, { create: true, readwrite: true });
  try {
    // Waiting for another process that is just creating the tables; look-ups never wait in WAL mode.
    db.run("PRAGMA busy_timeout = 5000");
    // Rows of 1 KB fit better than into pages of 4 KiB: loading takes a sixth less. Of a new file alone.
    db.run("PRAGMA page_size = 8192");
    db.run("PRAGMA journal_mode = WAL");
    // The inner nodes of the trees of a million entries.
    db.run("PRAGMA cache_size = -8192");
    const version = db.query<{ user_version: number }, []>("PRAGMA user_version").get()?.user_version;
    if (version !== SCHEMA_VERSION) createTables(db);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

function createTables(db: Database): void {
  db.transaction(() => {
    const current = db.query<{ user_version: number }, []>("PRAGMA user_version").get()?.user_version;
    if (current === SCHEMA_VERSION) return;
    const tables = db
      .query<{ name: string }, []>(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
      )
      .all();
    for (const { name } of tables) db.run(`DROP TABLE "${name}"`);
    db.run(SCHEMA);
    db.run(`PRAGMA user_version = ${SCHEMA_VERSION}`);
  }).immediate();
}

function isDamaged(error: unknown): boolean {
  return error instanceof SQLiteError && (error.code === "SQLITE_CORRUPT" || error.code === "SQLITE_NOTADB");
}

function databaseError(path: string, cause: unknown): NixcacheError {
  if (cause instanceof NixcacheError) return cause;
  return new NixcacheError("filesystem", `cannot use the local index ${path}: ${messageOf(cause)}`, {
    hint: "Set NIXCACHE_INDEX_DIR to a folder that can be written, with room for the index.",
    cause,
  });
}

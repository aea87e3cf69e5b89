/**
 * The local copy of a cache's index: the union of the layers that the reader chose.
 *
 * Each layer is a file that never changes (`layer-file.ts`); which of them make up the view, and what else is known,
 * is in SQLite. Layers come and go in one transaction, so a process that dies leaves the view as it was, and files that
 * the next one removes. Look-ups go on, on the old view, while another connection (or another process) loads. There is
 * nothing that cannot be read again: a damaged index is thrown away.
 */
import { Database, SQLiteError } from "bun:sqlite";
import { mkdirSync, rmSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { messageOf, NixcacheError, systemCode } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import { IndexReader, type OpenLayer } from "./index-reader.ts";
import { IndexUpdate } from "./index-update.ts";
import type { LayerFile } from "./layer-file.ts";
import { LayerFolder } from "./layer-folder.ts";
import { session } from "./session.ts";

/** Changes with the tables, with what is kept of a record, and with the layers' files; another version is thrown away. */
const SCHEMA_VERSION = 7;

const SCHEMA = `
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE layer (
  id INTEGER PRIMARY KEY,
  digest TEXT NOT NULL UNIQUE,
  size INTEGER NOT NULL,
  -- place in the root's stack from below, or NULL for a segment's own layer
  position INTEGER,
  -- the run of the machine that wrote its file, or NULL once that is on disk for certain
  session TEXT
);
-- the generations that a layer holds or covers
CREATE TABLE generation (
  layer INTEGER NOT NULL, name TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (layer, name)
) WITHOUT ROWID;
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

/**
 * What was written is forced to disk, and goes from SQLite's log into its file, this much later, in milliseconds: first
 * come those who wait for it.
 */
const SETTLE_AFTER_MS = 500;

/** How often a view is opened whose files another process has removed in that moment. */
const OPENINGS = 3;

export class IndexDatabase {
  readonly path: string;
  readonly #folder: LayerFolder;
  #connection: Database;
  /** The file that the connection has open: somebody may have removed or replaced it since. */
  #inode: number;
  #view: IndexReader;
  /** The state of the database that the view is of. */
  #version: number;
  /** Set from a look at the version to the next turn of the event loop. */
  #looked: ReturnType<typeof setImmediate> | undefined;
  #settling: ReturnType<typeof setTimeout> | undefined;
  #isClosed = false;
  /** Written and perhaps not yet on disk. */
  #unsettled: LayerFile[] = [];

  private constructor(path: string) {
    this.path = path;
    this.#folder = new LayerFolder(layersFolder(path));
    this.#connection = openFresh(path);
    this.#view = new IndexReader(this.#connection);
    try {
      this.#view.show(this.#layersOf(this.#connection));
    } catch (error) {
      if (!isFileDamaged(error)) throw error;
      this.#connection.close();
      removeFiles(path);
      this.#connection = openFresh(path);
      this.#view = new IndexReader(this.#connection);
    }
    this.#version = dataVersion(this.#connection);
    this.#inode = inodeOf(path);
  }

  /** The view as of the last update, by any process; it shows the same for a turn of the event loop. */
  get view(): IndexReader {
    if (this.#looked === undefined) {
      this.#looked = setImmediate(() => {
        this.#looked = undefined;
      });
      this.#followOthers();
    }
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
      using view = new IndexReader(connection);
      view.show(this.#layersInSnapshot(connection));
      return await read(view);
    } finally {
      connection.close();
    }
  }

  #layersInSnapshot(connection: Database): OpenLayer[] {
    for (let opening = 1; ; opening++) {
      connection.run("BEGIN");
      try {
        return this.#layersOf(connection);
      } catch (error) {
        connection.run("ROLLBACK");
        if (opening === OPENINGS || !isFileDamaged(error)) throw error;
      }
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
        const layers = this.#checkFiles(write);
        this.#folder.sweep(layers);
        using update = new IndexUpdate(write, this.#folder, session());
        const result = await change(update);
        update.finish();
        write.run("COMMIT");
        this.#unsettled.push(...update.written.map((file) => file.retain()));
        this.#followOthers();
        this.#settleLater();
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

  /** Closing it again is nothing. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#settling);
    this.#settleNow();
    this.#lookAgain();
    this.#view[Symbol.dispose]();
    this.#connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** The layers that a connection has. @throws `corrupt` and ENOENT for files that are not as they were written */
  #layersOf(connection: Database): OpenLayer[] {
    using opened = new DisposableStack();
    const layers = layerRows(connection).map(({ id, digest }) => {
      const file = opened.adopt(this.#folder.open(digest), (its) => its.release());
      return { id, file };
    });
    opened.move();
    return layers;
  }

  /** Takes over what another connection has written, if there is anything: an update has one of its own. */
  #followOthers(): void {
    const version = dataVersion(this.#connection);
    if (version === this.#version) return;
    try {
      this.#view.show(this.#layersOf(this.#connection));
      this.#version = version;
    } catch (error) {
      // The next update finds the damage; until then the old view is as good as ever.
      if (!isFileDamaged(error) && !isDamaged(error)) throw error;
    }
  }

  #lookAgain(): void {
    clearImmediate(this.#looked);
    this.#looked = undefined;
  }

  /** Digests of the layers. @throws `LayersDamaged` */
  #checkFiles(write: Database): Digest[] {
    const digests = layerRows(write).map(({ digest }) => digest);
    for (const digest of digests) {
      try {
        const file = this.#folder.open(digest);
        const { isDamaged } = file;
        file.release();
        if (isDamaged) throw new LayersDamaged(`the file of ${digest} is not as it was written`);
      } catch (error) {
        throw isFileDamaged(error) ? new LayersDamaged(messageOf(error)) : error;
      }
    }
    return digests;
  }

  #settleLater(): void {
    this.#settling ??= setTimeout(() => {
      void this.#settle();
    }, SETTLE_AFTER_MS).unref();
  }

  async #settle(): Promise<void> {
    try {
      for (const file of [...this.#unsettled]) await file.sync();
      if (this.#isClosed) return;
      this.#settling = undefined;
      if (!this.#markSettled()) this.#settleLater();
      else this.#connection.run("PRAGMA wal_checkpoint(PASSIVE)");
    } catch (error) {
      if (!isOfDisk(error)) throw error;
    }
  }

  #settleNow(): void {
    try {
      for (const file of this.#unsettled) file.syncNow();
      this.#markSettled();
    } catch (error) {
      if (!isOfDisk(error)) throw error;
    }
    for (const file of this.#unsettled.splice(0)) file.release();
  }

  /** Notes that files are on disk. Answers false when another connection is writing. */
  #markSettled(): boolean {
    if (this.#unsettled.length === 0 || inodeOf(this.path) !== this.#inode) return true;
    const write = this.#openWriter();
    try {
      const mark = write.query("UPDATE layer SET session = NULL WHERE digest = ?");
      write.run("BEGIN IMMEDIATE");
      for (const { digest } of this.#unsettled) mark.run(digest);
      write.run("COMMIT");
    } catch (error) {
      if (error instanceof SQLiteError && error.code === "SQLITE_BUSY") return false;
      throw error;
    } finally {
      write.close();
    }
    for (const file of this.#unsettled.splice(0)) file.release();
    return true;
  }

  #reopen(): void {
    this.#lookAgain();
    for (const file of this.#unsettled.splice(0)) file.release();
    try {
      this.#view[Symbol.dispose]();
      this.#connection.close();
      this.#connection = openFresh(this.path);
      this.#view = new IndexReader(this.#connection);
      this.#view.show(this.#layersOf(this.#connection));
      this.#version = dataVersion(this.#connection);
    } catch (cause) {
      throw databaseError(this.path, cause);
    }
    this.#inode = inodeOf(this.path);
  }

  #openWriter(): Database {
    const write = new Database(this.path, { readwrite: true, create: false });
    try {
      write.run("PRAGMA synchronous = NORMAL");
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

/** Where the layers' files are. */
function layersFolder(path: string): string {
  return `${path}-layers`;
}

function removeFiles(path: string): void {
  for (const suffix of ["", "-wal", "-shm"]) rmSync(path + suffix, { force: true });
  rmSync(layersFolder(path), { recursive: true, force: true });
}

function layerRows(db: Database): { id: number; digest: Digest }[] {
  return db.query<{ id: number; digest: Digest }, []>("SELECT id, digest FROM layer ORDER BY id").all();
}

/** Changes with what any other connection commits. */
function dataVersion(db: Database): number {
  return db.query<{ data_version: number }, []>("PRAGMA data_version").get()?.data_version ?? 0;
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
    db.run("PRAGMA journal_mode = WAL");
    const version = db.query<{ user_version: number }, []>("PRAGMA user_version").get()?.user_version;
    if (version !== SCHEMA_VERSION) createTables(db);
    // The machine may have gone down before they were on disk.
    const lost = db.query<{ n: number }, [string]>("SELECT count(*) AS n FROM layer WHERE session <> ?");
    if (lost.get(session())?.n !== 0) throw new LayersDamaged("layers that may not have reached the disk");
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
  db.run("VACUUM");
}

/** A layer's file is gone or not what it was. */
class LayersDamaged extends Error {}

function isDamaged(error: unknown): boolean {
  if (error instanceof LayersDamaged) return true;
  return error instanceof SQLiteError && (error.code === "SQLITE_CORRUPT" || error.code === "SQLITE_NOTADB");
}

/** Somebody has removed or damaged the file, or the disk is full: the next update says so. */
function isOfDisk(error: unknown): boolean {
  return error instanceof SQLiteError || systemCode(error) !== undefined;
}

/** Of opening a layer's file. */
function isFileDamaged(error: unknown): boolean {
  if (error instanceof NixcacheError) return error.code === "corrupt";
  return systemCode(error) === "ENOENT";
}

function databaseError(path: string, cause: unknown): NixcacheError {
  if (cause instanceof NixcacheError) return cause;
  return new NixcacheError("filesystem", `cannot use the local index ${path}: ${messageOf(cause)}`, {
    hint: "Set NIXCACHE_INDEX_DIR to a folder that can be written, with room for the index.",
    cause,
  });
}

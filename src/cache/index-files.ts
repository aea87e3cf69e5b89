/** The files of a local index: SQLite's with its tables, and the folder of the layers. */
import { Database, SQLiteError } from "bun:sqlite";
import { lstatSync } from "node:fs";
import { basename, dirname } from "node:path";
import {
  isOwnFile,
  makePrivateFile,
  openOwnFolder,
  removeOwnFile,
  removeOwnFolder,
} from "../system/own-folder.ts";
import { session } from "./session.ts";

/** Changes with the tables, with what is kept of a record, and with the layers' files; another version is thrown away. */
const SCHEMA_VERSION = 9;

/** What versions before lacked, by the version that a file has; see `upgrade`. */
const CAPITALS_VERSION = 7;
const UNSIGNED_VERSION = 8;

const SCHEMA = `
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE layer (
  id INTEGER PRIMARY KEY,
  digest TEXT NOT NULL UNIQUE,
  size INTEGER NOT NULL,
  -- place in the root's stack from below, or NULL for a segment's own layer
  position INTEGER,
  -- of a root layer, as its manifest has them
  signatures TEXT,
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

/** What SQLite keeps beside a file. */
const SUFFIXES = ["", "-wal", "-shm", "-journal"];

/**
 * Opens the file, made anew where it is absent, damaged, or of another version.
 * @throws UnsafeFolder where another user can write into its folder
 */
export function openFresh(path: string): Database {
  openOwnFolder(dirname(path), basename(layersFolder(path)));
  if (SUFFIXES.some((suffix) => isForeign(path + suffix))) removeFiles(path);
  try {
    makePrivate(path);
    return openCurrent(path);
  } catch (error) {
    if (!isDamaged(error)) throw error;
    removeFiles(path);
    openOwnFolder(dirname(path), basename(layersFolder(path)));
    makePrivate(path);
    return openCurrent(path);
  }
}

/** What a private cache holds is nobody else's to read. SQLite gives its other files the rights of this one. */
function makePrivate(path: string): void {
  try {
    makePrivateFile(path);
  } catch {
    // Why it cannot be opened SQLite says, too.
  }
}

/** SQLite would follow a link, and change what another name of the file stands for. */
function isForeign(path: string): boolean {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  return stats !== undefined && (!isOwnFile(stats) || stats.nlink > 1);
}

/** Where the layers' files are. */
export function layersFolder(path: string): string {
  return `${path}-layers`;
}

export function removeFiles(path: string): void {
  for (const suffix of SUFFIXES) removeOwnFile(path + suffix);
  removeOwnFolder(layersFolder(path), isLayerName);
}

function openCurrent(path: string): Database {
  const db = new Database(path, { create: true, readwrite: true });
  try {
    // Waiting for another process that is just creating the tables; look-ups never wait in WAL mode.
    db.run("PRAGMA busy_timeout = 5000");
    db.run("PRAGMA journal_mode = WAL");
    const version = versionOf(db);
    if (version === CAPITALS_VERSION || version === UNSIGNED_VERSION) upgrade(db);
    else if (version !== SCHEMA_VERSION) createTables(db);
    // The machine may have gone down before they were on disk.
    const lost = db.query<{ n: number }, [string]>("SELECT count(*) AS n FROM layer WHERE session <> ?");
    if (lost.get(session())?.n !== 0) throw new LayersDamaged("layers that may not have reached the disk");
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

/** Version 7 had names of generations with `T` and `Z`, and version 8 no signatures of layers. */
function upgrade(db: Database): void {
  db.transaction(() => {
    // One of two processes was first.
    if (versionOf(db) === SCHEMA_VERSION) return;
    db.run("UPDATE generation SET name = lower(name)");
    db.run("ALTER TABLE layer ADD COLUMN signatures TEXT");
    db.run(`PRAGMA user_version = ${SCHEMA_VERSION}`);
  }).immediate();
}

function versionOf(db: Database): number | undefined {
  return db.query<{ user_version: number }, []>("PRAGMA user_version").get()?.user_version;
}

function createTables(db: Database): void {
  let older = 0;
  db.transaction(() => {
    if (versionOf(db) === SCHEMA_VERSION) return;
    const tables = db
      .query<{ name: string }, []>(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
      )
      .all();
    older = tables.length;
    for (const { name } of tables) db.run(`DROP TABLE "${name}"`);
    db.run(SCHEMA);
    db.run(`PRAGMA user_version = ${SCHEMA_VERSION}`);
  }).immediate();
  // What the tables of another version had is given back.
  if (older > 0) db.run("VACUUM");
}

/** Whether a file in the folder of the layers is ours: a layer, or one in the making. */
export function isLayerName(name: string): boolean {
  return /^[0-9a-f]{64}(\.part)?$/.test(name);
}

/** A layer's file is gone or not what it was. */
export class LayersDamaged extends Error {}

export function isDamaged(error: unknown): boolean {
  if (error instanceof LayersDamaged) return true;
  return error instanceof SQLiteError && (error.code === "SQLITE_CORRUPT" || error.code === "SQLITE_NOTADB");
}

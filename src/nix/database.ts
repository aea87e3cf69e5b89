/**
 * Reads the SQLite database in which Nix keeps its valid paths: a closure of 10,000 paths in tens of
 * milliseconds, where `nix path-info` takes ten times as long.
 *
 * The tables are Nix's own affair, but the same in every release from 2.0 to 2.34 (schema 10):
 *
 *     ValidPaths(id, path, hash 'sha256:<base16>', registrationTime, deriver, narSize, ultimate, sigs, ca)
 *     Refs(referrer, reference)
 *
 * The database is in WAL mode. While Nix has it open, `-wal` and `-shm` lie beside it and anybody may read. When
 * nobody has, SQLite insists on creating these two, which only the owner may do, and which would leave files in
 * Nix's folder. Then it is read as `immutable`, which skips all locking; a writer that comes meanwhile is
 * noticed by the file's time and size, and the reading is done again.
 */
import { constants, Database } from "bun:sqlite";
import { type BigIntStats, statSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { messageOf, NixcacheError, systemCode } from "../errors.ts";
import { canonicalSha256 } from "../nar/hash.ts";
import { NoStorePath } from "./no-store-path.ts";
import type { PathInfo } from "./path-info.ts";

/** Milliseconds to wait for a writer's lock. Reading blocks the thread, so not for long. */
const BUSY_TIMEOUT = 2_000;
/** How often an immutable reading is tried before giving up on a store that is being written. */
const ATTEMPTS = 3;

/** The database cannot be read from here and now, or is not there. Nix itself may know more. */
export class DatabaseUnreadable extends Error {
  override readonly name = "DatabaseUnreadable";
  readonly missing: boolean;

  constructor(message: string, options: { missing?: boolean; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.missing = options.missing ?? false;
  }
}

/**
 * Whether `path` is a valid path of the store.
 *
 * @throws DatabaseUnreadable
 */
export function isValidInDatabase(file: string | undefined, path: string): boolean {
  return reading(file, (db) => db.query("SELECT 1 FROM ValidPaths WHERE path = ?").get(path) !== null);
}

/**
 * The closure of `roots` in no particular order.
 *
 * @throws DatabaseUnreadable; `nix-store` when a root is not valid.
 */
export function closureInDatabase(file: string | undefined, roots: readonly string[]): PathInfo[] {
  return reading(file, (db) => readClosure(db, roots));
}

interface Row {
  id: number;
  path: string;
  hash: string;
  registrationTime: number;
  deriver: string | null;
  narSize: number | null;
  ultimate: number | null;
  sigs: string | null;
  ca: string | null;
  refs: string | null;
}

/** One statement, so that the closure is walked once; references as ids, joined by commas. */
const CLOSURE = `
  WITH RECURSIVE closure(id) AS (
    SELECT id FROM ValidPaths WHERE path IN (SELECT value FROM json_each(?))
    UNION
    SELECT reference FROM Refs JOIN closure ON referrer = closure.id
  )
  SELECT id, path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca,
    (SELECT group_concat(reference) FROM Refs WHERE referrer = closure.id) AS refs
  FROM closure JOIN ValidPaths USING (id)`;

function readClosure(db: Database, roots: readonly string[]): PathInfo[] {
  const rows = db.query<Row, [string]>(CLOSURE).all(JSON.stringify(roots));
  const paths = new Map(rows.map((row) => [String(row.id), row.path]));
  const found = new Set(paths.values());
  const absent = roots.find((root) => !found.has(root));
  if (absent !== undefined) throw notValid(absent);
  return rows.map((row) => {
    const ids = row.refs === null ? [] : row.refs.split(",");
    return decode(
      row,
      ids.flatMap((id) => paths.get(id) ?? []),
    );
  });
}

function decode(row: Row, references: string[]): PathInfo {
  const { path, narSize } = row;
  if (narSize === null || !Number.isSafeInteger(narSize) || narSize <= 0) {
    throw new NixcacheError("nix-store", `${path}: got NAR size ${narSize}, expected a number of bytes`, {
      hint: "The path was registered by a very old Nix; delete it and build it again.",
    });
  }
  return {
    path,
    narHash: canonicalSha256(row.hash, `${path}: hash`),
    narSize,
    references: references.sort(),
    ...(row.deriver ? { deriver: row.deriver } : {}),
    sigs: (row.sigs ?? "").split(/\s+/).filter((sig) => sig !== ""),
    ...(row.ca ? { ca: row.ca } : {}),
    ultimate: row.ultimate === 1,
    registrationTime: row.registrationTime,
  };
}

/** @returns an error of the kind that every way of asking gives for a path that is not valid. */
export function notValid(path: string): NoStorePath {
  return new NoStorePath(`${path} is not a valid path of the Nix store`, {
    hint: `Build or fetch it first, such as with \`nix-store --realise ${path}\`.`,
  });
}

/**
 * Runs `read` on one consistent snapshot of the database; more than once when a writer came between, so it must
 * have no effects.
 *
 * @param file undefined where it is not known
 * @throws DatabaseUnreadable
 */
export function reading<T>(file: string | undefined, read: (db: Database) => T): T {
  if (file === undefined)
    throw new DatabaseUnreadable("only its daemon knows where it is", { missing: true });
  try {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const before = statSync(file, { bigint: true });
      if (hasContent(`${file}-wal`) || hasContent(`${file}-journal`)) {
        return using(new Database(file, { readonly: true }), read);
      }
      const result = readImmutable(file, read);
      if (result !== undefined && isSame(before, statSync(file, { bigint: true }))) return result.value;
    }
  } catch (error) {
    if (error instanceof NixcacheError) throw error;
    const missing = systemCode(error) === "ENOENT" || systemCode(error) === "ENOTDIR";
    throw new DatabaseUnreadable(`${file}: ${messageOf(error)}`, { missing, cause: error });
  }
  throw new DatabaseUnreadable(`${file} is being written all the time`);
}

function hasContent(file: string): boolean {
  return (statSync(file, { throwIfNoEntry: false })?.size ?? 0) > 0;
}

function isSame(a: BigIntStats, b: BigIntStats): boolean {
  return a.ino === b.ino && a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs;
}

/** Undefined when what was read makes no sense, as it may when a writer was at it. */
function readImmutable<T>(file: string, read: (db: Database) => T): { value: T } | undefined {
  const uri = `${pathToFileURL(file).href}?immutable=1`;
  const db = new Database(uri, constants.SQLITE_OPEN_READONLY | constants.SQLITE_OPEN_URI);
  try {
    return { value: using(db, read) };
  } catch (error) {
    if (systemCode(error) === "SQLITE_CORRUPT") return undefined;
    throw error;
  }
}

/** Runs `read` on one snapshot and closes the database. */
function using<T>(db: Database, read: (db: Database) => T): T {
  try {
    db.run(`PRAGMA busy_timeout = ${BUSY_TIMEOUT}`);
    return db.transaction(() => read(db))();
  } finally {
    db.close();
  }
}

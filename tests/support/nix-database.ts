/** Nix's database with made-up paths, where a test needs no files behind them. Schema 10: Nix 2.0 to 2.34. */
import { Database } from "bun:sqlite";
import { encodeBase32 } from "../../src/nar/base32.ts";

/** An open database in WAL mode, as Nix makes it. */
export function createNixDatabase(file: string): Database {
  const db = new Database(file, { create: true });
  db.run("PRAGMA journal_mode = WAL");
  db.run(`CREATE TABLE ValidPaths (
    id integer primary key autoincrement not null, path text unique not null, hash text not null,
    registrationTime integer not null, deriver text, narSize integer, ultimate integer, sigs text, ca text)`);
  db.run(`CREATE TABLE Refs (
    referrer integer not null, reference integer not null, primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict)`);
  db.run("CREATE INDEX IndexReferrer on Refs(referrer)");
  db.run("CREATE INDEX IndexReference on Refs(reference)");
  return db;
}

export interface PathFields {
  hash?: string;
  registrationTime?: number;
  deriver?: string;
  narSize?: number | null;
  ultimate?: number;
  sigs?: string;
  ca?: string;
  /** Full paths that are there already, or the path itself. */
  references?: string[];
}

export function insertPath(db: Database, path: string, fields: PathFields = {}): void {
  const { hash = `sha256:${"ab".repeat(32)}`, registrationTime = 1, narSize = 120 } = fields;
  const { deriver = null, ultimate = null, sigs = null, ca = null } = fields;
  db.query("INSERT INTO ValidPaths VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)").run(
    ...[path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca],
  );
  const insert = db.query(
    "INSERT INTO Refs SELECT a.id, b.id FROM ValidPaths a, ValidPaths b WHERE a.path = ? AND b.path = ?",
  );
  for (const reference of fields.references ?? []) insert.run(path, reference);
}

/** A store path whose hash follows from its name. */
export function storePath(name: string): string {
  const hash = new Bun.CryptoHasher("sha256").update(name).digest().subarray(0, 20);
  return `/nix/store/${encodeBase32(hash)}-${name}`;
}

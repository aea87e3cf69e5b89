/**
 * The journal: uploads that were accepted and are not in the cache yet, on disk.
 *
 * ```
 * journal.sqlite    what there is: small texts, and by their digests files
 * blobs/<hex>       NARs as they were sent; listings and logs as zstd
 * drafts/           files in the making
 * ```
 * An upload is in the journal once its row is committed and its file has been synced. A process that is killed
 * leaves files without rows and rows without files, whose client was told nothing; the next one removes them. The
 * database is locked for as long as it is open, so that two servers do not commit the same.
 */
import { Database, SQLiteError } from "bun:sqlite";
import { randomUUID } from "node:crypto";
import { lstatSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Attachment } from "../cache/attachment.ts";
import { messageOf, NixcacheError } from "../errors.ts";
import { type Digest, digestHex, isDigest } from "../oci/digest.ts";
import { syncFolder } from "../oci/layout-files.ts";
import type { Source, SourceView } from "../serve/source.ts";
import {
  isDrawnName,
  isOwnFile,
  makePrivateFile,
  openOwnFolder,
  removeOwnFile,
  removeOwnFolder,
  UnsafeFolder,
} from "../system/own-folder.ts";
import { checkPlain } from "../system/plain-file.ts";
import type { ReceivedFile } from "./body.ts";

/** Changes with the tables. */
const SCHEMA_VERSION = 1;

const SCHEMA = `
CREATE TABLE file (
  -- a file that is put again gets a new number
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  path TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  -- the store hash of the entry that it belongs to, where that is known by it
  hash TEXT,
  -- the file name of the NAR that it belongs to: of narinfos, NARs, and debuginfo
  nar TEXT,
  -- base name, of narinfos
  deriver TEXT,
  text TEXT,
  digest TEXT,
  size INTEGER NOT NULL,
  received INTEGER NOT NULL
);
CREATE INDEX file_kind ON file (kind, size);
CREATE INDEX file_hash ON file (hash);
CREATE INDEX file_nar ON file (nar);
CREATE INDEX file_deriver ON file (deriver);
CREATE INDEX file_digest ON file (digest);
`;

/** What a file that stands alone is kept for: its client has died, or sends its narinfo later. */
const ALONE_MS = 24 * 3_600_000;

export interface JournalFile {
  readonly number: number;
  /** As in its URL. */
  readonly path: string;
  readonly kind: "narinfo" | "nar" | "listing" | "attached";
  readonly hash: string | null;
  readonly nar: string | null;
  readonly deriver: string | null;
  /** The content, or else the digest of the file that has it. */
  readonly text: string | null;
  readonly digest: Digest | null;
  /** Bytes that it takes up. */
  readonly size: number;
  /** Milliseconds since 1970. */
  readonly received: number;
}

/** What says where a file belongs. */
export type NewFile = Pick<JournalFile, "path" | "kind"> &
  Partial<Pick<JournalFile, "hash" | "nar" | "deriver">>;

export interface JournalTotals {
  /** Store paths. */
  readonly paths: number;
  readonly bytes: number;
}

export class Journal implements Source, Disposable {
  readonly view: SourceView;
  readonly store: Source["store"];
  readonly #folder: string;
  readonly #db: Database;
  readonly #now: () => number;

  private constructor(folder: string, db: Database, cache: Source["store"], now: () => number) {
    this.#folder = folder;
    this.#db = db;
    this.#now = now;
    this.view = {
      narinfo: (hash) => this.file(`${hash}.narinfo`)?.text ?? undefined,
      nar: (name) => {
        const file = this.file(`nar/${name}`);
        return file?.digest ? { parts: [wholePart(file.digest, file.size)] } : undefined;
      },
      listing: (hash) => {
        const file = this.file(`${hash}.ls`);
        return file?.digest ? wholePart(file.digest, file.size) : undefined;
      },
      attached: (path) => {
        const file = this.file(path);
        return file?.kind === "attached" ? attachmentOf(file) : undefined;
      },
    };
    this.store = {
      name: cache.name,
      readBlob: async (digest, options = {}) => {
        const file = Bun.file(this.blobFile(digest));
        // Committed and removed since the client began to read it.
        if (!(await file.exists())) return cache.readBlob(digest, options);
        const { range } = options;
        return (range ? file.slice(range.offset, range.offset + range.length) : file).stream();
      },
    };
  }

  /**
   * @param folder made where it is missing; nobody else can look into it
   * @param cache has what was committed and removed from here a moment ago
   * @throws `filesystem` when it cannot be written, or another process has it open.
   */
  static open(folder: string, cache: Source["store"], now: () => number): Journal {
    try {
      for (const name of ["blobs", "drafts"]) openOwnFolder(folder, name);
      const db = openDatabase(join(folder, "journal.sqlite"));
      const journal = new Journal(folder, db, cache, now);
      journal.#recover();
      return journal;
    } catch (cause) {
      if (cause instanceof UnsafeFolder) throw cause;
      const busy = cause instanceof SQLiteError && cause.code === "SQLITE_BUSY";
      const why = busy ? "another nixcache serve --writable uses it" : messageOf(cause);
      throw new NixcacheError("filesystem", `cannot use the journal ${folder}: ${why}`, {
        hint: busy
          ? "Stop the other server, or give this one a folder of its own with NIXCACHE_JOURNAL_DIR."
          : "Set NIXCACHE_JOURNAL_DIR to a folder that can be written, with room for what is uploaded.",
        cause,
      });
    }
  }

  /** The name for a new file in the making. */
  draft(): string {
    return join(this.#folder, "drafts", randomUUID());
  }

  blobFile(digest: Digest): string {
    return join(this.#folder, "blobs", digestHex(digest));
  }

  file(path: string): JournalFile | undefined {
    return this.#db.query<JournalFile, [string]>("SELECT * FROM file WHERE path = ?").get(path) ?? undefined;
  }

  /** Takes over a file that has been synced. Once this is done, it is there to stay. The draft is gone, whatever happens. */
  async addFile(file: NewFile, { file: draft, digest, size }: ReceivedFile): Promise<void> {
    try {
      // In one turn of the event loop: a blob without a row would be removed.
      renameSync(draft, this.blobFile(digest));
      this.#insert(file, { digest, size });
    } finally {
      rmSync(draft, { force: true });
    }
    await syncFolder(join(this.#folder, "blobs"));
  }

  addText(file: NewFile, text: string): void {
    this.#insert(file, { text, size: Buffer.byteLength(text) });
  }

  totals(): JournalTotals {
    const row = this.#db
      .query<{ paths: number; bytes: number | null }, []>(
        "SELECT sum(kind = 'narinfo') AS paths, sum(size) AS bytes FROM file",
      )
      .get();
    return { paths: row?.paths ?? 0, bytes: row?.bytes ?? 0 };
  }

  /** The narinfos that were received first, at most so many and, but for the first, so many bytes. */
  narinfos(limit: number, bytes: number): JournalFile[] {
    return this.#db
      .query<JournalFile, [number, number]>(
        `SELECT * FROM (
           SELECT *, sum(size) OVER (ORDER BY number) - size AS before FROM file WHERE kind = 'narinfo'
         ) WHERE before < ? ORDER BY number LIMIT ?`,
      )
      .all(bytes, limit);
  }

  /** What stands beside an entry: its listing and attached files. */
  beside(hash: string, nar: string): JournalFile[] {
    return this.#db
      .query<JournalFile, [string, string]>(
        `SELECT * FROM file WHERE hash = ? AND kind IN ('listing', 'attached')
         UNION SELECT * FROM file WHERE nar = ? AND kind = 'attached'`,
      )
      .all(hash, nar);
  }

  /** What is kept in the file of this digest. */
  ofDigest(digest: Digest): JournalFile[] {
    return this.#db.query<JournalFile, [string]>("SELECT * FROM file WHERE digest = ?").all(digest);
  }

  /** Narinfos that name this NAR file. */
  narinfosOf(nar: string): JournalFile[] {
    return this.#db
      .query<JournalFile, [string]>("SELECT * FROM file WHERE kind = 'narinfo' AND nar = ?")
      .all(nar);
  }

  /** Listings and attached files whose narinfo is not in the journal, at most so many. */
  alone(limit: number): JournalFile[] {
    return this.#db
      .query<JournalFile, [number]>(
        `SELECT * FROM file AS f WHERE kind IN ('listing', 'attached') AND NOT EXISTS (
           SELECT 1 FROM file AS n WHERE n.kind = 'narinfo' AND (n.hash = f.hash OR n.nar = f.nar)
         ) ORDER BY number LIMIT ?`,
      )
      .all(limit);
  }

  /** The store hash of a path that this derivation made. */
  ofDeriver(baseName: string): string | undefined {
    const row = this.#db
      .query<{ hash: string }, [string]>("SELECT hash FROM file WHERE deriver = ? LIMIT 1")
      .get(baseName);
    return row?.hash;
  }

  /** Removes files, unless they were put again since, and NARs that no narinfo here names any more. */
  remove(files: readonly JournalFile[]): void {
    this.#db.transaction(() => {
      const remove = this.#db.query("DELETE FROM file WHERE number = ?");
      const removeNar = this.#db.query(
        `DELETE FROM file WHERE kind = 'nar' AND nar = ?1 AND NOT EXISTS (
           SELECT 1 FROM file WHERE kind = 'narinfo' AND nar = ?1
         )`,
      );
      for (const { number } of files) remove.run(number);
      for (const { kind, nar } of files) if (kind === "narinfo" && nar !== null) removeNar.run(nar);
    })();
    this.#removeBlobs();
  }

  /** Removes what has waited for its narinfo for a day. Only for when everything else has been committed. */
  sweep(): void {
    this.#db.run(
      `DELETE FROM file WHERE kind <> 'narinfo' AND received < ? AND NOT EXISTS (
         SELECT 1 FROM file AS n WHERE n.kind = 'narinfo' AND (n.hash = file.hash OR n.nar = file.nar)
       )`,
      [this.#now() - ALONE_MS],
    );
    this.#removeBlobs();
  }

  [Symbol.dispose](): void {
    this.#db.close();
  }

  #insert(file: NewFile, content: { text?: string; digest?: Digest; size: number }): void {
    this.#db
      .query(
        `INSERT OR REPLACE INTO file (path, kind, hash, nar, deriver, text, digest, size, received)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      )
      .run(
        file.path,
        file.kind,
        file.hash ?? null,
        file.nar ?? null,
        file.deriver ?? null,
        content.text ?? null,
        content.digest ?? null,
        content.size,
        this.#now(),
      );
  }

  /** What a process that was killed has left half done. */
  #recover(): void {
    removeOwnFolder(join(this.#folder, "drafts"), isDrawnName);
    openOwnFolder(this.#folder, "drafts");
    const files = this.#db
      .query<{ number: number; digest: Digest; size: number }, []>(
        "SELECT number, digest, size FROM file WHERE digest IS NOT NULL",
      )
      .all();
    for (const { number, digest, size } of files) {
      const found = lstatSync(this.blobFile(digest), { throwIfNoEntry: false });
      if (!found || !isOwnFile(found) || found.size !== size)
        this.#db.run("DELETE FROM file WHERE number = ?", [number]);
    }
    this.#removeBlobs();
  }

  #removeBlobs(): void {
    const named = this.#db.query<unknown, [string]>("SELECT 1 FROM file WHERE digest = ? LIMIT 1");
    for (const name of readdirSync(join(this.#folder, "blobs"))) {
      if (isDigest(`sha256:${name}`) && named.get(`sha256:${name}`) === null)
        removeOwnFile(join(this.#folder, "blobs", name));
    }
  }
}

export function attachmentOf({ text, digest, size }: JournalFile): Attachment | undefined {
  if (text !== null) return { text };
  return digest === null ? undefined : { part: wholePart(digest, size) };
}

function wholePart(blob: Digest, size: number) {
  return { blob, size, offset: 0, length: size };
}

function openDatabase(path: string): Database {
  // SQLite would make it as the umask says, and gives the files beside it the rights of this one.
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats !== undefined) checkPlain(path, stats);
  makePrivateFile(path);
  const db = new Database(path, { create: true, readwrite: true });
  try {
    db.run("PRAGMA locking_mode = EXCLUSIVE");
    db.run("PRAGMA journal_mode = WAL");
    // Each commit is on disk before its client is told.
    db.run("PRAGMA synchronous = FULL");
    db.transaction(() => {
      const version = db.query<{ user_version: number }, []>("PRAGMA user_version").get()?.user_version;
      if (version === SCHEMA_VERSION) return;
      if (version !== 0) throw new Error(`it has format ${version}, expected ${SCHEMA_VERSION}`);
      db.run(SCHEMA);
      db.run(`PRAGMA user_version = ${SCHEMA_VERSION}`);
    }).immediate();
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

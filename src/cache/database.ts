/**
 * The local copy of a cache's index: the union of the layers that the reader chose.
 *
 * Each layer is a file that never changes (`layer-file.ts`); which of them make up the view, and what else is known,
 * is in SQLite. Layers come and go in one transaction, so a process that dies leaves the view as it was, and files that
 * the next one removes. Look-ups go on, on the old view, while another connection (or another process) loads. There is
 * nothing that cannot be read again: a damaged index is thrown away.
 */
import { Database, SQLiteError } from "bun:sqlite";
import { statSync } from "node:fs";
import { messageOf, NixcacheError, systemCode } from "../errors.ts";
import type { PublicKey } from "../nar/signing-key.ts";
import type { Digest } from "../oci/digest.ts";
import { UnsafeFolder, UnusableFolder } from "../system/own-folder.ts";
import { isDamaged, LayersDamaged, layersFolder, openFresh, removeFiles } from "./index-files.ts";
import { IndexReader, type OpenLayer } from "./index-reader.ts";
import { IndexUpdate } from "./index-update.ts";
import type { LayerFile } from "./layer-file.ts";
import { LayerFolder } from "./layer-folder.ts";
import { session } from "./session.ts";
import { isOfDisk, Settling } from "./settling.ts";
import type { GenerationName } from "./tags.ts";

/** How often a view is opened whose files another process has removed in that moment. */
const OPENINGS = 3;

/** What a process has found malformed in a cache: it need not be fetched, nor told of, again. */
interface KnownMalformed {
  readonly generations: Set<GenerationName>;
  /** Layers with lines that are no entries. Their other lines count, and nobody puts them into another layer. */
  readonly layers: Set<Digest>;
}

export class IndexDatabase {
  readonly path: string;
  readonly malformed: KnownMalformed = { generations: new Set(), layers: new Set() };
  readonly #folder: LayerFolder;
  #connection: Database;
  /** The file that the connection has open: somebody may have removed or replaced it since. */
  #inode: number;
  #view: IndexReader;
  /** The state of the database that the view is of. */
  #version: number;
  /** Set from a look at the version to the next turn of the event loop. */
  #looked: ReturnType<typeof setImmediate> | undefined;
  readonly #settling: Settling;
  #isClosed = false;

  readonly #given: readonly PublicKey[];

  private constructor(path: string, given: readonly PublicKey[]) {
    this.path = path;
    this.#given = given;
    this.#folder = new LayerFolder(layersFolder(path));
    this.#connection = openFresh(path);
    this.#view = new IndexReader(this.#connection, this.#given);
    try {
      this.#view.show(this.#layersOf(this.#connection));
    } catch (error) {
      if (!isFileDamaged(error)) throw error;
      this.#connection.close();
      removeFiles(path);
      this.#connection = openFresh(path);
      this.#view = new IndexReader(this.#connection, this.#given);
    }
    this.#version = dataVersion(this.#connection);
    this.#inode = inodeOf(path);
    this.#settling = new Settling((files) => this.#markSettled(files));
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

  /**
   * Opens the file, making it and its folder where needed.
   * @param given keys of the reader: of several builds of a path one that these have signed is shown
   * @throws `filesystem` when it cannot be written.
   */
  static open(path: string, given: readonly PublicKey[] = []): IndexDatabase {
    try {
      return new IndexDatabase(path, given);
    } catch (cause) {
      throw databaseError(path, cause);
    }
  }

  /** Gives `read` a view that stays the same until it is done, whoever updates in the meantime. */
  async snapshot<T>(read: (view: IndexReader) => Promise<T>): Promise<T> {
    const connection = new Database(this.path, { readonly: true });
    try {
      using view = new IndexReader(connection, this.#given);
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
        this.#followOthers();
        this.#settling.add(update.written);
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
      throw isOfDisk(error) ? databaseError(this.path, error) : error;
    } finally {
      write?.close();
    }
  }

  /** Closing it again is nothing. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#settling.close();
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

  /** Notes that files are on disk, and empties SQLite's log into its file. @returns false while another is writing */
  #markSettled(files: readonly LayerFile[]): boolean {
    // Another index by now, which has files of its own.
    if (inodeOf(this.path) !== this.#inode) return true;
    const write = this.#openWriter();
    try {
      const mark = write.query("UPDATE layer SET session = NULL WHERE digest = ?");
      write.run("BEGIN IMMEDIATE");
      for (const { digest } of files) mark.run(digest);
      write.run("COMMIT");
      write.run("PRAGMA wal_checkpoint(PASSIVE)");
      return true;
    } catch (error) {
      if (error instanceof SQLiteError && error.code === "SQLITE_BUSY") return false;
      throw error;
    } finally {
      write.close();
    }
  }

  #reopen(): void {
    this.#lookAgain();
    try {
      this.#view[Symbol.dispose]();
      this.#connection.close();
      this.#connection = openFresh(this.path);
      this.#view = new IndexReader(this.#connection, this.#given);
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

/** Of opening a layer's file. */
function isFileDamaged(error: unknown): boolean {
  if (error instanceof NixcacheError) return error.code === "corrupt";
  return systemCode(error) === "ENOENT";
}

function databaseError(path: string, cause: unknown): NixcacheError {
  const isUnusable = cause instanceof UnusableFolder && !(cause instanceof UnsafeFolder);
  if (cause instanceof NixcacheError && !isUnusable) return cause;
  return new NixcacheError("filesystem", `cannot use the local index ${path}: ${messageOf(cause)}`, {
    hint: "Set NIXCACHE_INDEX_DIR to a folder that can be written, with room for the index.",
    cause,
  });
}

/**
 * The folder of the blob cache: its bound, what is removed first, and what several processes owe each other.
 *
 * ```
 * blobs-v1/<hex>         complete files, see blob-cache-file.ts; the time of change is that of the last use
 * filling/<uuid>/        files in the making of one process
 * filling/<uuid>/lock    held by the kernel for as long as that process lives
 * ```
 * The files are the only record, so there is nothing that a killed process could leave in disagreement with them.
 * Looking through them all takes a while (10,000 files: about 0.1 s), so each look grants an allowance, and the next
 * is due when that is used up. A process alone keeps to the limit at every moment, files in the making at their full
 * size included; further processes on the same folder may each exceed it by a sixteenth until their next look.
 */
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { lstat, readdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { mapConcurrently, Semaphore } from "../concurrency.ts";
import type { Host } from "../host.ts";
import { isDrawnName, openOwnFolder, removeOwnFolder } from "../system/own-folder.ts";
import { cachedFileBytes } from "./blob-cache-file.ts";
import { type Digest, digestHex, isDigest } from "./digest.ts";
import { unlessMissing } from "./layout-files.ts";
import { withLock } from "./layout-lock.ts";

const BLOBS = "blobs-v1";
const FILLING = "filling";
const LOCK = "lock";

/** What one look may grant, as a share of the limit. */
const ALLOWANCE = 1 / 16;

/** Somebody may take a fresh folder for an abandoned one, once or twice. */
const TRIES = 5;

const STATS_AT_ONCE = 16;

interface FoundFile {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  readonly usedMs: number;
}

export class BlobCacheFolder {
  readonly path: string;
  readonly limit: number;
  /** Complete blobs, as of the last look and what this process did since. */
  blobs = 0;
  /** Their bytes. */
  bytes = 0;
  readonly #host: Host;
  readonly #queue = new Semaphore(1);
  /** Bytes that may still be taken before the next look. */
  #allowance = 0;
  /** Bytes of the files that this process has in the making. */
  #filling = 0;
  #own: Promise<OwnFolder> | undefined;

  /** @param limit bytes */
  constructor(path: string, limit: number, host: Host) {
    this.path = path;
    this.limit = limit;
    this.#host = host;
  }

  /** Makes the folder, removes what killed processes have left, and counts. @throws `filesystem` */
  open(): Promise<void> {
    return this.#queue.run(async () => void (await this.#look(0)));
  }

  /** Lets go of the folder; nothing may be in the making any more. */
  async close(): Promise<void> {
    const own = await this.#own?.catch(() => undefined);
    await own?.release();
  }

  file(digest: Digest): string {
    return join(this.path, BLOBS, digestHex(digest));
  }

  /**
   * Room for a blob of `size` bytes and a path to make it at, on the same file system as its place; undefined when it
   * does not fit beside what is in the making. Old blobs are removed for it. @throws `filesystem`
   */
  async reserve(size: number): Promise<string | undefined> {
    const wanted = cachedFileBytes(size);
    if (wanted > this.limit) return undefined;
    return this.#queue.run(async () => {
      if (wanted > this.#allowance && !(await this.#look(wanted))) return undefined;
      const path = join((await this.#ownFolder()).path, randomUUID());
      this.#allowance -= wanted;
      this.#filling += wanted;
      return path;
    });
  }

  /** The blob of a reservation is in its place, or will never be. */
  settle(size: number, kept: boolean): void {
    const taken = cachedFileBytes(size);
    this.#filling -= taken;
    if (kept) this.#count(1, taken);
    else this.#allowance += taken;
  }

  /** After a failure: somebody may have emptied the folder. The next reservation looks and makes what is missing. */
  recheck(): void {
    this.#allowance = 0;
  }

  /** Removes a blob of `size` bytes whose file is damaged. */
  async discard(digest: Digest, size: number): Promise<void> {
    try {
      await unlink(this.file(digest));
      this.#count(-1, -cachedFileBytes(size));
    } catch {
      // It is gone, or cannot be removed; then it is found damaged again.
    }
  }

  #count(blobs: number, bytes: number): void {
    this.blobs = Math.max(0, this.blobs + blobs);
    this.bytes = Math.max(0, this.bytes + bytes);
  }

  async #ownFolder(): Promise<OwnFolder> {
    const own = await this.#own?.catch(() => undefined);
    if (own && existsSync(own.path)) return own;
    await own?.release();
    this.#own = makeOwnFolder(this.path, this.#host);
    return this.#own;
  }

  /** Counts everything, and removes what was used longest ago until `wanted` bytes fit. @returns whether they do */
  async #look(wanted: number): Promise<boolean> {
    // Anew each time: it may have been removed, and made by somebody else.
    const blobs = openOwnFolder(this.path, BLOBS);
    const own = await this.#ownFolder();
    // Before the files are listed: what is finished meanwhile counts twice rather than never.
    const filling = this.#filling + (await this.#lookAtOthers(own.path));
    const files = await listFiles(blobs, (name) => isDigest(`sha256:${name}`));
    let bytes = files.reduce((sum, file) => sum + file.size, 0);
    let count = files.length;
    const share = Math.max(wanted, Math.floor(this.limit * ALLOWANCE));
    if (filling + bytes + wanted > this.limit) {
      // Some more than needed, so that a full cache is not looked through for each blob.
      for (const file of files.sort(byUse)) {
        if (filling + bytes + share <= this.limit) break;
        // One that cannot be removed goes on taking up its room.
        if (!(await isRemoved(file.path))) continue;
        bytes -= file.size;
        count--;
      }
    }
    this.bytes = bytes;
    this.blobs = count;
    const free = this.limit - filling - bytes;
    this.#allowance = Math.max(0, Math.min(share, free));
    return wanted <= free;
  }

  /** Removes the folders of processes that are gone. @returns the bytes that the others have in the making */
  async #lookAtOthers(own: string): Promise<number> {
    const parent = openOwnFolder(this.path, FILLING);
    let bytes = 0;
    for (const name of (await namesIn(parent)).filter(isDrawnName)) {
      const folder = join(parent, name);
      if (folder === own || (await removeIfAbandoned(folder, this.#host))) continue;
      for (const file of await listFiles(folder, isDrawnName)) bytes += file.size;
    }
    return bytes;
  }
}

interface OwnFolder {
  readonly path: string;
  release(): Promise<void>;
}

/**
 * A new folder that others leave alone for as long as this process lives. A lock of the kernel says so and not the
 * process's number, which is another one's in the next container.
 */
async function makeOwnFolder(base: string, host: Host): Promise<OwnFolder> {
  for (let tries = 1; ; tries++) {
    const path = openOwnFolder(base, FILLING, randomUUID());
    const lock = join(path, LOCK);
    const locked = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    const holding = withLock(lock, { host, timeoutMs: -1 }, () => {
      locked.resolve();
      return released.promise;
    });
    const release = async () => {
      released.resolve();
      await holding.catch(() => {});
      removeOwnFolder(path, isOfOwnFolder);
    };
    try {
      await Promise.race([locked.promise, holding]);
      // Who took it for abandoned, before it was locked, has removed it.
      if (existsSync(lock)) return { path, release };
      await release();
    } catch (error) {
      await release();
      if (tries === TRIES) throw error;
    }
  }
}

async function removeIfAbandoned(folder: string, host: Host): Promise<boolean> {
  try {
    if (!(await lstat(folder)).isDirectory()) return true;
    await withLock(join(folder, LOCK), { host, timeoutMs: -1 }, async () =>
      removeOwnFolder(folder, isOfOwnFolder),
    );
    return !existsSync(folder);
  } catch {
    return false;
  }
}

function isOfOwnFolder(name: string): boolean {
  return name === LOCK || isDrawnName(name);
}

/** What cannot be listed has an unknown size, and not none. None where the folder is not there. */
async function namesIn(folder: string): Promise<string[]> {
  return (await unlessMissing("read", folder, () => readdir(folder))) ?? [];
}

/** Whether the file is gone. */
async function isRemoved(path: string): Promise<boolean> {
  return unlessMissing("remove", path, () => unlink(path)).then(
    () => true,
    () => false,
  );
}

async function listFiles(folder: string, isOurs: (name: string) => boolean): Promise<FoundFile[]> {
  const names = await namesIn(folder);
  const found = await mapConcurrently(names.filter(isOurs), STATS_AT_ONCE, async (name) => {
    const path = join(folder, name);
    // Another process may have removed it meanwhile.
    const stats = await unlessMissing("read", path, () => lstat(path));
    return stats?.isFile() ? [{ path, size: stats.size, usedMs: stats.mtimeMs }] : [];
  });
  return found.flat();
}

function byUse(a: FoundFile, b: FoundFile): number {
  return a.usedMs - b.usedMs || (a.path < b.path ? -1 : 1);
}

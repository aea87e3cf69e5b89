/**
 * A blob on its way into the cache: one download that any number of readers follow, each at its own place, through
 * the file that grows. What makes the last byte readable is that all of them were found right, so that no reader of
 * a whole blob gets wrong bytes that end cleanly (rule 5).
 */
import { type FileHandle, open, rename, unlink } from "node:fs/promises";
import { NixcacheError } from "../errors.ts";
import { BlockSums, CHUNK_BYTES, cachedFileBytes, readFully, writeFully } from "./blob-cache-file.ts";
import type { Digest } from "./digest.ts";
import { fileError } from "./layout-files.ts";
import { throwIfAborted } from "./network.ts";

/**
 * A reader this far ahead of the download is served better by a request of its own. It is more than one reader asks
 * for ahead of what it has: such a reader would otherwise overtake its own download.
 */
const AHEAD_BYTES = 64 * 1024 * 1024;

export interface FillSource {
  readonly digest: Digest;
  /** Bytes of the blob. */
  readonly size: number;
  /** For messages. */
  readonly from: string;
}

export interface FillTarget {
  /** Where the file is made; on the same file system as `path`. */
  readonly draft: string;
  /** Where it goes once it is complete. */
  readonly path: string;
  /** Milliseconds since 1970; the time of the first use. */
  readonly now: () => number;
}

/** What one reader reads from, until it is closed. */
export interface LocalReader {
  /**
   * Some of the bytes from `at` on, none from `end` on; undefined when the rest is to be had from the store.
   * @throws when the store has failed.
   */
  read(at: number, end: number, signal: AbortSignal): Promise<Uint8Array | undefined>;
  close(): Promise<void>;
}

type FillEnd = { readonly error: unknown } | "complete" | "elsewhere";

export class BlobFill {
  readonly #source: FillSource;
  #handle: FileHandle | undefined;
  /** Who may read from the handle: the download itself, and the readers. */
  #users = 1;
  /** Bytes that readers may have. */
  #readable = 0;
  #end: FillEnd | undefined;
  readonly #waiting = new Set<() => void>();

  constructor(source: FillSource) {
    this.#source = source;
  }

  /** There will be no download: readers go to the store by themselves. */
  passBy(): void {
    this.#finish("elsewhere");
  }

  /**
   * Downloads, checks, and gives the file its name.
   * @throws `corrupt` for wrong bytes, `filesystem` when the disk fails; whatever reading `chunks` throws.
   */
  async run(chunks: AsyncIterable<Uint8Array>, { draft, path, now }: FillTarget): Promise<void> {
    try {
      const sums = await this.#download(chunks, draft);
      this.#readable = this.#source.size;
      this.#finish("complete");
      await onDisk(draft, async () => {
        const handle = this.#handle as FileHandle;
        await writeFully(handle, this.#source.size, sums.bytes());
        await handle.utimes(now() / 1000, now() / 1000);
        await handle.sync();
        await rename(draft, path);
      });
    } catch (error) {
      await unlink(draft).catch(() => {});
      this.#finish(error instanceof DiskFailure ? "elsewhere" : { error });
      throw error instanceof DiskFailure ? error.failure : error;
    } finally {
      await this.#leave();
    }
  }

  /** For one more reader; close it. */
  reader(): LocalReader {
    this.#users++;
    return {
      read: (at, end, signal) => this.#read(at, end, signal),
      close: () => this.#leave(),
    };
  }

  async #download(chunks: AsyncIterable<Uint8Array>, draft: string): Promise<BlockSums> {
    const { digest, size } = this.#source;
    const hasher = new Bun.CryptoHasher("sha256");
    const sums = new BlockSums();
    const handle = await onDisk(draft, async () => {
      const opened = await open(draft, "wx+", 0o600);
      this.#handle = opened;
      // At its full size from the start: this is what others that look at the folder count.
      await opened.truncate(cachedFileBytes(size));
      return opened;
    });
    let done = 0;
    for await (const chunk of chunks) {
      if (done + chunk.length > size) throw this.#wrong(`more than the expected ${size} bytes`);
      hasher.update(chunk);
      sums.update(chunk);
      await onDisk(draft, () => writeFully(handle, done, chunk));
      done += chunk.length;
      if (done < size) this.#advance(done);
    }
    if (done !== size) throw this.#wrong(`${done} bytes, expected ${size}`);
    const found = hasher.digest("hex");
    if (`sha256:${found}` !== digest) throw this.#wrong(`bytes with the SHA-256 ${found}`);
    return sums;
  }

  async #read(at: number, end: number, signal: AbortSignal): Promise<Uint8Array | undefined> {
    for (;;) {
      throwIfAborted(signal);
      const length = Math.min(this.#readable, end, at + CHUNK_BYTES) - at;
      if (length > 0 && this.#handle) {
        return readFully(this.#handle, at, length).catch(() => undefined);
      }
      if (typeof this.#end === "object") throw this.#end.error;
      if (this.#end !== undefined || at - this.#readable > AHEAD_BYTES) return undefined;
      await this.#change(signal);
    }
  }

  /** Resolves when there is more to read, or the signal fires. */
  #change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#waiting.delete(wake);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      this.#waiting.add(wake);
      signal.addEventListener("abort", wake, { once: true });
    });
  }

  #advance(readable: number): void {
    this.#readable = readable;
    for (const wake of [...this.#waiting]) wake();
  }

  #finish(end: FillEnd): void {
    this.#end ??= end;
    this.#advance(this.#readable);
  }

  async #leave(): Promise<void> {
    this.#users--;
    if (this.#users === 0) await this.#handle?.close().catch(() => {});
  }

  #wrong(found: string): NixcacheError {
    return new NixcacheError("corrupt", `blob ${this.#source.digest} of ${this.#source.from}: got ${found}`);
  }
}

/** Tells a failure of the disk, with which readers have nothing to do, from one of the store. */
class DiskFailure extends Error {
  readonly failure: unknown;

  constructor(failure: unknown) {
    super("disk");
    this.failure = failure;
  }
}

async function onDisk<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw new DiskFailure(fileError("write", path, error));
  }
}

/**
 * A cache of blobs on disk, by digest, in front of stores: what one client has asked for is there for the next,
 * with the registry down or gone. Blobs are named by their content, so all stores share one cache.
 *
 * The disk only ever helps: one that is full, read-only or damaged costs what the store costs without it.
 */
import { lstatSync } from "node:fs";
import { messageOf, NixcacheError } from "../errors.ts";
import type { Host } from "../host.ts";
import { UnsafeFolder } from "../system/own-folder.ts";
import { CachedFile } from "./blob-cache-file.ts";
import { BlobFill, type LocalReader } from "./blob-cache-fill.ts";
import { BlobCacheFolder } from "./blob-cache-folder.ts";
import type { Digest } from "./digest.ts";
import { type ByteRange, checkRange, type Store } from "./store.ts";

/** The side of a store that is read through the cache. */
export type CacheableStore = Pick<Store, "name" | "readBlob" | "ignoresRange">;

/** All bytes of a blob, in order. @throws when it is absent, too */
export type Download = (
  store: CacheableStore,
  digest: Digest,
  size: number,
  signal: AbortSignal,
) => AsyncIterable<Uint8Array>;

export interface BlobCacheOptions {
  readonly directory: string;
  /** Bytes of all files together, see blob-cache-folder.ts. A blob that is larger is passed by. */
  readonly limit: number;
  readonly host: Host;
  /** How a blob is fetched. Default: by one request. */
  readonly download?: Download | undefined;
  /** Told once when the disk begins to fail. */
  readonly warn: (message: string) => void;
}

export interface BlobCacheStatus {
  readonly directory: string;
  /** Of complete blobs, without what other processes did since the last look at the folder. */
  readonly bytes: number;
  readonly limit: number;
  readonly blobs: number;
  /** Reads that needed no request to a store. */
  readonly hits: number;
  readonly misses: number;
  /** Downloads under way. */
  readonly filling: number;
}

const NONE = { throwIfNoEntry: false } as const;

/** Downloads at once. What is asked for beyond them is not kept. */
const MAX_FILLS = 32;

/** Where a blob comes from when it is not here. */
interface Origin {
  readonly store: CacheableStore;
  readonly download?: Download | undefined;
  readonly onWrong?: (() => void) | undefined;
}

interface Running {
  readonly fill: BlobFill;
  readonly store: CacheableStore;
  readonly ended: Promise<void>;
}

export class BlobCache {
  readonly #folder: BlobCacheFolder;
  readonly #options: BlobCacheOptions;
  readonly #fills = new Map<Digest, Running>();
  readonly #closing = new AbortController();
  #hits = 0;
  #misses = 0;
  #isFailing = false;

  private constructor(options: BlobCacheOptions) {
    this.#options = options;
    this.#folder = new BlobCacheFolder(options.directory, options.limit, options.host);
  }

  /**
   * Makes the folder and removes what killed processes have left. A disk that fails is a warning.
   * @throws UnsafeFolder where another user can write into the folder
   */
  static async open(options: BlobCacheOptions): Promise<BlobCache> {
    const cache = new BlobCache(options);
    await cache.#folder.open().catch((error) => {
      if (error instanceof UnsafeFolder) throw error;
      cache.#failed(error);
    });
    return cache;
  }

  /** Ends the downloads under way and lets go of the folder. What is open for reading stays readable. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new NixcacheError("interrupted", "interrupted"));
    await Promise.all([...this.#fills.values()].map(({ ended }) => ended));
    await this.#folder.close();
  }

  status(): BlobCacheStatus {
    const { path, limit, bytes, blobs } = this.#folder;
    const [hits, misses, filling] = [this.#hits, this.#misses, this.#fills.size];
    return { directory: path, bytes, limit, blobs, hits, misses, filling };
  }

  /** Whether a blob can be read without its store. */
  holds(digest: Digest): boolean {
    if (this.#fills.has(digest)) return false;
    try {
      return lstatSync(this.#folder.file(digest), NONE)?.isFile() === true;
    } catch {
      // Where a file is in the place of a folder, or the disk fails, nothing is held.
      return false;
    }
  }

  /**
   * The store, read through this cache, except where the reader does not say how large the blob is.
   * @param how.download instead of the cache's own
   * @param how.onWrong told when what was downloaded is not the blob
   */
  over(store: CacheableStore, how: Pick<Origin, "download" | "onWrong"> = {}): CacheableStore {
    const origin = { download: this.#options.download, ...how, store };
    return {
      name: store.name,
      readBlob: async (digest, options = {}) => {
        const { size, signal } = options;
        checkRange(options.range);
        const range = options.range ?? { offset: 0, length: size ?? 0 };
        const isInside = size !== undefined && range.length > 0 && range.offset + range.length <= size;
        const local = isInside ? await this.#local(origin, digest, size) : undefined;
        return local === undefined
          ? store.readBlob(digest, options)
          : readThrough(local, range, signal, (rest, signal) =>
              store.readBlob(digest, { range: rest, size, signal }),
            );
      },
    };
  }

  /** Where the blob can be read on this machine, now or as it comes. */
  async #local(origin: Origin, digest: Digest, size: number): Promise<LocalReader | undefined> {
    const running = this.#fills.get(digest) ?? (await this.#open(digest, size)) ?? this.#fills.get(digest);
    if (running !== undefined) {
      this.#hits++;
      return "fill" in running ? follow(running, origin.store) : running;
    }
    this.#misses++;
    if (this.#fills.size >= MAX_FILLS || this.#closing.signal.aborted) return undefined;
    return follow(this.#start(origin, digest, size), origin.store);
  }

  async #open(digest: Digest, size: number): Promise<LocalReader | undefined> {
    const file = await CachedFile.open(this.#folder.file(digest), size, this.#options.host.now());
    if (file === "absent") return undefined;
    if (file === "damaged") {
      await this.#folder.discard(digest, size);
      return undefined;
    }
    return {
      read: async (at, end) => {
        const bytes = await file.read(at, end);
        if (bytes === undefined) await this.#folder.discard(digest, size);
        return bytes;
      },
      close: () => file.close(),
    };
  }

  /**
   * It goes on when nobody reads it any more: clients of a pack read slices of it and those of a large blob one
   * window after the other, so between two reads there is often nobody, and what was asked for once will be again.
   */
  #start(origin: Origin, digest: Digest, size: number): Running {
    const { store } = origin;
    const fill = new BlobFill({ digest, size, from: store.name });
    const ended = this.#run(fill, origin, digest, size).finally(() => this.#fills.delete(digest));
    const running = { fill, store, ended };
    this.#fills.set(digest, running);
    return running;
  }

  async #run(fill: BlobFill, origin: Origin, digest: Digest, size: number): Promise<void> {
    const { store, download = downloadAtOnce, onWrong } = origin;
    const { host } = this.#options;
    let draft: string | undefined;
    try {
      draft = await this.#folder.reserve(size);
    } catch (error) {
      this.#failed(error);
    }
    if (draft === undefined) return fill.passBy();
    const path = this.#folder.file(digest);
    const chunks = download(store, digest, size, this.#closing.signal);
    try {
      await fill.run(chunks, { draft, path, now: () => host.now() });
      this.#folder.settle(size, true);
      this.#isFailing = false;
    } catch (error) {
      this.#folder.settle(size, false);
      // Failures of the store are for the readers, who report them.
      const code = error instanceof NixcacheError ? error.code : undefined;
      if (code === "filesystem") this.#failed(error);
      if (code === "corrupt") onWrong?.();
    }
  }

  #failed(error: unknown): void {
    this.#folder.recheck();
    if (!this.#isFailing) this.#options.warn(`NARs are not kept on disk for now: ${messageOf(error)}`);
    this.#isFailing = true;
  }
}

/** A reader of a download. What another store has failed to give, this one may have. */
function follow({ fill, store }: Running, own: CacheableStore): LocalReader {
  const reader = fill.reader();
  if (store === own) return reader;
  return {
    ...reader,
    read: (at, end, signal) =>
      reader.read(at, end, signal).catch((error) => {
        if (signal.aborted) throw error;
        return undefined;
      }),
  };
}

/** A stream of a range: from disk as far as that goes, the rest by `fetchRest`. Pull-based. */
function readThrough(
  local: LocalReader,
  { offset, length }: ByteRange,
  signal: AbortSignal | undefined,
  fetchRest: (range: ByteRange, signal: AbortSignal) => ReturnType<Store["readBlob"]>,
): ReadableStream<Uint8Array> {
  const end = offset + length;
  const cancelled = new AbortController();
  const stop = signal === undefined ? cancelled.signal : AbortSignal.any([signal, cancelled.signal]);
  let at = offset;
  let rest: AsyncIterator<Uint8Array> | undefined;
  let pulling: Promise<void> = Promise.resolve();
  let isClosed = false;

  const close = async (): Promise<void> => {
    if (isClosed) return;
    isClosed = true;
    await local.close();
    await rest?.return?.().catch(() => {});
  };

  const next = async (): Promise<Uint8Array> => {
    const bytes = rest === undefined ? await local.read(at, end, stop) : undefined;
    if (bytes !== undefined) return bytes;
    rest ??= (await fetchRest({ offset: at, length: end - at }, stop))?.[Symbol.asyncIterator]();
    const found = await rest?.next();
    if (found?.done === false) return found.value;
    throw new NixcacheError("corrupt", `the blob ended after ${at} bytes, expected ${end}`);
  };

  const pull = async (controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
    try {
      const chunk = await next();
      at += chunk.length;
      controller.enqueue(chunk);
      if (at < end) return;
      await close();
      controller.close();
    } catch (error) {
      await close();
      if (!cancelled.signal.aborted) controller.error(error);
    }
  };

  return new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        pulling = pull(controller);
        return pulling;
      },
      async cancel(reason) {
        cancelled.abort(reason);
        // A file must not be closed under a read.
        await pulling;
        await close();
      },
    },
    { highWaterMark: 0 },
  );
}

/** By one request. */
export async function* downloadAtOnce(
  store: CacheableStore,
  digest: Digest,
  _size: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const stream = await store.readBlob(digest, { signal });
  if (stream !== undefined) yield* stream;
  else throw new NixcacheError("corrupt", `blob ${digest} of ${store.name} is absent`);
}

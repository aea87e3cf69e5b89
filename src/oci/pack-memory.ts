/**
 * Packs in memory. Whoever takes a second slice of a blob that holds many small NARs will take more of them, each over
 * a round trip of its own; so the whole blob is fetched once, checked against its digest, and slices are cut from it.
 */
import { NixcacheError } from "../errors.ts";
import { type Digest, digestOf } from "./digest.ts";
import { onAbort, throwIfAborted } from "./network.ts";
import type { Store } from "./store.ts";

/** Publish fills packs with 8 MiB of NARs before compression. */
const MOST_PACK_BYTES = 8 * 1024 * 1024;

/** All packs together, those that are still coming included. */
const BUDGET_BYTES = 16 * 1024 * 1024;

/** Blobs of which one slice was taken; a digest has 100 bytes. */
const MOST_SEEN = 1_000;

type ReadBlob = Store["readBlob"];

interface Pack {
  readonly size: number;
  isComing: boolean;
  /** Undefined where it could not be had, an error where that would be so of a slice as well. Never rejects. */
  readonly bytes: Promise<Uint8Array | NixcacheError | undefined>;
}

/** In front of a store whose slices clients wait for. */
export const PACK_MEMORY = {
  over: ({ readBlob }: Pick<Store, "readBlob">) => ({ readBlob: rememberPacks(readBlob) }),
};

/** `readBlob` of a store, with packs in memory before it. Where a pack cannot be had, the slice is asked for. */
export function rememberPacks(readBlob: ReadBlob): ReadBlob {
  /** The one that was not used for longest comes first. */
  const packs = new Map<Digest, Pack>();
  const seen = new Set<Digest>();
  let held = 0;

  const forget = (digest: Digest, { size }: Pack) => {
    if (packs.delete(digest)) held -= size;
  };

  /** Undefined while those that are coming take up all of the room. */
  const begin = (digest: Digest, size: number): Pack | undefined => {
    for (const [oldest, pack] of packs) {
      if (held + size <= BUDGET_BYTES) break;
      if (!pack.isComing) forget(oldest, pack);
    }
    if (held + size > BUDGET_BYTES) return undefined;
    held += size;
    const bytes = fetchPack(readBlob, digest, size).then((found) => {
      pack.isComing = false;
      if (!(found instanceof Uint8Array)) forget(digest, pack);
      return found;
    });
    const pack: Pack = { size, isComing: true, bytes };
    packs.set(digest, pack);
    return pack;
  };

  return async (digest, options = {}) => {
    const { range, size, isPack, signal } = options;
    if (!isPack || range === undefined || size === undefined || size > MOST_PACK_BYTES)
      return readBlob(digest, options);
    let pack = packs.get(digest);
    if (pack !== undefined) {
      packs.delete(digest);
      packs.set(digest, pack);
    } else if (seen.has(digest)) {
      pack = begin(digest, size);
    } else {
      seen.add(digest);
      const [oldest] = seen;
      if (seen.size > MOST_SEEN && oldest !== undefined) seen.delete(oldest);
    }
    const bytes = pack && (await unlessAborted(pack.bytes, signal));
    if (bytes instanceof NixcacheError) throw bytes;
    if (bytes === undefined || range.offset + range.length > bytes.length) return readBlob(digest, options);
    return streamOf(bytes.subarray(range.offset, range.offset + range.length));
  };
}

/** The blob, found right; undefined where it could not be had so, and the error where nobody answers. */
async function fetchPack(
  readBlob: ReadBlob,
  digest: Digest,
  size: number,
): Promise<Uint8Array | NixcacheError | undefined> {
  const bytes = new Uint8Array(size);
  let arrived = 0;
  try {
    for await (const chunk of (await readBlob(digest, { size })) ?? []) {
      if (arrived + chunk.length > size) return undefined;
      bytes.set(chunk, arrived);
      arrived += chunk.length;
    }
  } catch (error) {
    if (error instanceof NixcacheError && error.code === "unreachable") return error;
    // Whoever waits asks for the slice alone, and learns why it cannot be had.
    return undefined;
  }
  return arrived === size && digestOf(bytes) === digest ? bytes : undefined;
}

/** @throws `interrupted` */
async function unlessAborted<T>(waited: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  const aborted = Promise.withResolvers<void>();
  const stopListening = onAbort([signal], () => aborted.resolve());
  try {
    await Promise.race([waited, aborted.promise]);
    throwIfAborted(signal);
    return await waited;
  } finally {
    stopListening();
  }
}

function streamOf(bytes: Uint8Array): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        controller.enqueue(bytes);
        controller.close();
      },
    },
    { highWaterMark: 0 },
  );
}

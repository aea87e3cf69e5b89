/**
 * A process that fills a blob cache, for tests that kill it: `blob-cache-process.ts FOLDER LIMIT`. It reads the blobs
 * of `someBlobs` one after the other through the cache, and ends when all are in their places.
 */
import { BlobCache } from "../../src/oci/blob-cache.ts";
import { type Digest, digestOf } from "../../src/oci/digest.ts";
import { MemoryStore } from "./memory-store.ts";

/** Blobs of some blocks and a piece, the same in every process. */
export function someBlobs(): Map<Digest, Uint8Array> {
  const blobs = Array.from({ length: 4 }, (_, i) => new Uint8Array(200_000 + i).fill(i + 1));
  return new Map(blobs.map((bytes) => [digestOf(bytes), bytes]));
}

export async function readAll(directory: string, limit: number): Promise<void> {
  const store = new MemoryStore();
  const host = { now: Date.now, random: Math.random, sleep: (ms: number) => Bun.sleep(ms) };
  const warn = (message: string) => {
    throw new Error(message);
  };
  await using cache = await BlobCache.open({ directory, limit, host, warn });
  for (const [digest, bytes] of someBlobs()) {
    store.blobs.set(digest, bytes);
    const stream = await cache.over(store).readBlob(digest, { size: bytes.length });
    const read = await new Response(stream).bytes();
    if (digestOf(read) !== digest) throw new Error(`${digest}: got other bytes`);
    while (cache.status().filling > 0) await Bun.sleep(1);
  }
}

if (import.meta.main) {
  const [folder = "", limit = ""] = process.argv.slice(2);
  await readAll(folder, Number(limit));
}

/**
 * Streaming a NAR from its parts.
 *
 * Rule 5: what leaves is checked against the FileHash of the narinfo, part blobs against their digests; the
 * last bytes go out only after the check, so that a client never sees a wrong NAR end cleanly.
 */
import { isWholeBlob, type Part } from "../cache/part.ts";
import { NixcacheError } from "../errors.ts";
import { type Digest, digestHex } from "../oci/digest.ts";
import type { Store } from "../oci/store.ts";

/** NARs up to this many bytes are read whole, checked, and sent with their length. */
export const BUFFERED_BYTES = 4 * 1024 * 1024;

export interface NarSource {
  readonly parts: readonly Part[];
  /** SHA-256 of all parts in order, where the narinfo states it. */
  readonly fileSha256: Digest | undefined;
}

export function narSize(source: NarSource): number {
  return source.parts.reduce((sum, part) => sum + part.length, 0);
}

/** The whole NAR file, checked. @throws when a part is absent, cannot be read, or is wrong. */
export async function readNar(source: NarSource, store: Store, signal: AbortSignal): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of checkedChunks(source, store, signal)) chunks.push(chunk);
  return chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks);
}

/**
 * The NAR file as a stream that holds back for a slow client. It errors, which breaks the transfer, when
 * anything is wrong. Starts reading at once: resolves when the first bytes are there, rejects when there are none.
 */
export async function streamNar(
  source: NarSource,
  store: Store,
  signal: AbortSignal,
): Promise<ReadableStream<Uint8Array>> {
  const chunks = checkedChunks(source, store, signal);
  let next = await chunks.next();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        if (next.done) {
          controller.close();
          return;
        }
        controller.enqueue(next.value);
        next = await chunks.next();
        if (next.done) controller.close();
      },
      async cancel() {
        await chunks.return(undefined);
      },
    },
    { highWaterMark: 0 },
  );
}

async function* checkedChunks(
  source: NarSource,
  store: Store,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  const file = new Bun.CryptoHasher("sha256");
  let held: Uint8Array | undefined;
  for (const [index, part] of source.parts.entries()) {
    const hasher = isWholeBlob(part) && source.parts.length > 1 ? new Bun.CryptoHasher("sha256") : undefined;
    const isLast = index === source.parts.length - 1;
    for await (const chunk of readPart(part, store, signal)) {
      file.update(chunk);
      hasher?.update(chunk);
      // One chunk is always held back: the one that completes a part leaves after the part was found right.
      if (held) yield held;
      held = chunk;
    }
    if (hasher) check(hasher, part.blob, part, store);
    if (isLast && source.fileSha256) check(file, source.fileSha256, part, store);
  }
  if (held) yield held;
}

async function* readPart(
  part: Part,
  store: Store,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  const range = isWholeBlob(part) ? undefined : { offset: part.offset, length: part.length };
  const stream = await store.readBlob(part.blob, { range, signal });
  if (stream === undefined) {
    throw new NixcacheError(
      "corrupt",
      `blob ${part.blob} of ${store.name} is absent, although the index names it`,
      {
        hint: "Publish the path again.",
      },
    );
  }
  let length = 0;
  for await (const chunk of stream) {
    length += chunk.length;
    // An empty chunk held back would hold back nothing.
    if (chunk.length > 0) yield chunk;
  }
  if (length !== part.length) {
    throw new NixcacheError(
      "corrupt",
      `blob ${part.blob} of ${store.name}: got ${length} bytes, expected ${part.length}`,
    );
  }
}

function check(hasher: Bun.CryptoHasher, expected: Digest, part: Part, store: Store): void {
  const found = hasher.digest("hex");
  if (found === digestHex(expected)) return;
  throw new NixcacheError(
    "corrupt",
    `blob ${part.blob} of ${store.name}: the bytes have the SHA-256 ${found}, expected ${digestHex(expected)}`,
  );
}

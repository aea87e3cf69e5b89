/**
 * The file behind a NAR's URL, put together from its parts and checked on the way: part blobs against their
 * digests, the whole against the FileHash of the narinfo (rule 5).
 */
import { isWholeBlob, type Part } from "../cache/part.ts";
import { NixcacheError } from "../errors.ts";
import { parseHash } from "../nar/hash.ts";
import { digestHex } from "../oci/digest.ts";
import type { ByteRange, Store } from "../oci/store.ts";

/** All that reading needs of a store. */
export type BlobReader = Pick<Store, "name" | "readBlob">;

export interface NarFileSource {
  readonly parts: readonly Part[];
  /** `sha256:<base32>` of all parts in order, where the narinfo states it. */
  readonly fileHash: string | undefined;
}

export interface ReadOptions {
  readonly signal?: AbortSignal | undefined;
  /** Out of which each request's bytes are taken until they have been read. Default: no bound. */
  readonly memory?: { take(wanted: number): number; giveBack(taken: number): void } | undefined;
}

/** Bytes. */
export function narFileSize({ parts }: NarFileSource): number {
  return parts.reduce((sum, part) => sum + part.length, 0);
}

/**
 * The file behind a NAR's URL, in chunks. The chunk that completes a part, or the file, comes only after it was
 * found right.
 *
 * @throws when a part is absent, cannot be read, or is wrong
 */
export async function* readNarFile(
  source: NarFileSource,
  store: BlobReader,
  options: ReadOptions = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  const file = new Bun.CryptoHasher("sha256");
  const expected = source.fileHash === undefined ? undefined : sha256Hex(source.fileHash);
  let held: Uint8Array | undefined;
  for (const [index, part] of source.parts.entries()) {
    const hasher = isWholeBlob(part) && source.parts.length > 1 ? new Bun.CryptoHasher("sha256") : undefined;
    const isLast = index === source.parts.length - 1;
    for await (const chunk of readPart(part, store, options)) {
      file.update(chunk);
      hasher?.update(chunk);
      // One chunk is always held back: the one that completes a part leaves after the part was found right.
      if (held) yield held;
      held = chunk;
    }
    if (hasher) check(hasher, digestHex(part.blob), part, store);
    if (isLast && expected) check(file, expected, part, store);
  }
  if (held) yield held;
}

async function* readPart(
  part: Part,
  store: BlobReader,
  { signal, memory }: ReadOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  for (let done = 0; done < part.length; ) {
    const left = part.length - done;
    const length = memory?.take(left) ?? left;
    try {
      yield* readRange(part, { offset: part.offset + done, length }, store, signal);
    } finally {
      memory?.giveBack(length);
    }
    done += length;
  }
}

async function* readRange(
  part: Part,
  range: ByteRange,
  store: BlobReader,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  const whole = range.length === part.size;
  const stream = await store.readBlob(part.blob, { range: whole ? undefined : range, signal });
  if (stream === undefined) {
    throw new NixcacheError(
      "corrupt",
      `blob ${part.blob} of ${store.name} is absent, although the index names it`,
      { hint: "Run nixcache verify --repair, then publish the path again." },
    );
  }
  let got = 0;
  for await (const chunk of stream) {
    got += chunk.length;
    // An empty chunk held back would hold back nothing.
    if (chunk.length > 0) yield chunk;
  }
  if (got !== range.length) {
    throw new NixcacheError(
      "corrupt",
      `blob ${part.blob} of ${store.name}: got ${got} bytes, expected ${range.length}`,
    );
  }
}

function check(hasher: Bun.CryptoHasher, expected: string, part: Part, store: BlobReader): void {
  const found = hasher.digest("hex");
  if (found === expected) return;
  throw new NixcacheError(
    "corrupt",
    `blob ${part.blob} of ${store.name}: the bytes have the SHA-256 ${found}, expected ${expected}`,
  );
}

function sha256Hex(fileHash: string): string {
  return Buffer.from(parseHash(fileHash, "FileHash").bytes).toString("hex");
}

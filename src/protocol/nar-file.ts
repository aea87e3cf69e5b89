/**
 * The file behind a NAR's URL, put together from its parts and checked on the way: part blobs against their
 * digests, the whole against the FileHash of the narinfo (rule 5).
 */
import { isWholeBlob, type Part } from "../cache/part.ts";
import { NixcacheError } from "../errors.ts";
import { parseHash } from "../nar/hash.ts";
import { digestHex } from "../oci/digest.ts";
import type { ByteRange } from "../oci/store.ts";
import { type BlobReader, type ReadOptions, readBlobRange } from "./blob-range.ts";

export interface NarFileSource {
  readonly parts: readonly Part[];
  /** `sha256:<base32>` of all parts in order, where the narinfo states it. */
  readonly fileHash: string | undefined;
}

/** Bytes. */
export function narFileSize({ parts }: NarFileSource): number {
  return parts.reduce((sum, part) => sum + part.length, 0);
}

/**
 * The file behind a NAR's URL, or those bytes of it, in chunks. The chunk that completes a part, or the file, comes
 * only after it was found right. A part that is not wanted whole cannot be checked.
 *
 * @throws when a part is absent, cannot be read, or is wrong
 */
export async function* readNarFile(
  source: NarFileSource,
  store: BlobReader,
  options: ReadOptions & { readonly range?: ByteRange | undefined } = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  const size = narFileSize(source);
  const { offset, length } = options.range ?? { offset: 0, length: size };
  const file = source.fileHash !== undefined && length === size ? new Bun.CryptoHasher("sha256") : undefined;
  let held: Uint8Array | undefined;
  /** Where the part begins in the file. */
  let at = 0;
  for (const part of source.parts) {
    const from = Math.max(offset - at, 0);
    const to = Math.min(offset + length - at, part.length);
    at += part.length;
    if (from >= to) continue;
    const whole = isWholeBlob(part) && to - from === part.length;
    // Of a NAR that is one blob the file's hash is the blob's.
    const hasher =
      whole && (file === undefined || source.parts.length > 1) ? new Bun.CryptoHasher("sha256") : undefined;
    // A blob of more than one NAR: what is more than half of it has only its listing behind it.
    const blob = { digest: part.blob, size: part.size, isPack: 2 * part.length <= part.size };
    const range = { offset: part.offset + from, length: to - from };
    for await (const chunk of readBlobRange(store, blob, range, options)) {
      file?.update(chunk);
      hasher?.update(chunk);
      // One chunk is always held back: the one that completes a part leaves after the part was found right.
      if (held) yield held;
      held = chunk;
    }
    if (hasher) check(hasher, digestHex(part.blob), part, store);
    if (file && source.fileHash !== undefined && at === size)
      check(file, sha256Hex(source.fileHash), part, store);
  }
  if (held) yield held;
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

/**
 * A part: a slice of a blob that holds one zstd-compressed piece of a NAR, or a compressed file beside it.
 *
 * In an index line a part that is a whole blob is `[digest, size]`, a slice of a pack is
 * `[digest, size, offset, length]`; all numbers are bytes, `size` is the blob's, which a manifest that names
 * the blob must state.
 */
import { NixcacheError, preview } from "../errors.ts";
import { type Digest, parseDigest } from "../oci/digest.ts";

export interface Part {
  readonly blob: Digest;
  /** Size of the whole blob, in bytes. */
  readonly size: number;
  readonly offset: number;
  readonly length: number;
}

/** More than this many parts of 1 GiB is no NAR that we made. */
const MAX_PARTS = 32_768;

export function isWholeBlob(part: Part): boolean {
  return part.offset === 0 && part.length === part.size;
}

export function encodePart(part: Part): unknown[] {
  return isWholeBlob(part) ? [part.blob, part.size] : [part.blob, part.size, part.offset, part.length];
}

export function encodeParts(parts: readonly Part[]): unknown[] {
  return parts.map(encodePart);
}

/** @throws `corrupt`, naming `where`. */
export function decodeParts(value: unknown, where: string): Part[] {
  if (!Array.isArray(value) || value.length === 0 || value.length > MAX_PARTS) {
    throw new NixcacheError("corrupt", `${where}: expected a list of 1 to ${MAX_PARTS} parts`);
  }
  return value.map((item) => decodePart(item, where));
}

/** @throws `corrupt`, naming `where`. */
export function decodePart(value: unknown, where: string): Part {
  if (!Array.isArray(value) || (value.length !== 2 && value.length !== 4)) {
    throw new NixcacheError(
      "corrupt",
      `${where}: got the part ${preview(value, 200)}, expected [digest, size] or [digest, size, offset, length]`,
    );
  }
  const blob = parseDigest(value[0], where);
  const [, size, offset = 0, length = size] = value as unknown[];
  if (!isCount(size) || !isCount(offset) || !isCount(length) || length === 0 || offset + length > size) {
    throw new NixcacheError(
      "corrupt",
      `${where}: got the part ${preview(value, 200)}, which lies outside its blob of ${preview(size)} bytes`,
    );
  }
  return { blob, size, offset, length };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

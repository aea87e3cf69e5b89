/**
 * The NAR format: a canonical archive of one file, symlink or directory tree, without times and owners.
 *
 *   nar   = str("nix-archive-1") node
 *   node  = "(" "type" ("regular" ["executable" ""] "contents" bytes
 *                      | "symlink" "target" str
 *                      | "directory" { "entry" "(" "name" str "node" node ")" }) ")"
 *   str   = length as 64 bits little-endian, the bytes, zeros up to the next multiple of 8
 *
 * Every word is a `str`. Entries ascend by the bytes of their names; names need not be UTF-8.
 * https://nix.dev/manual/nix/latest/protocols/nix-archive/
 */

export const NAR_MAGIC = "nix-archive-1";

/** Nodes inside each other, the root included; Nix from 2.35 on refuses the 65th. */
export const MAX_NAR_DEPTH = 64;

/** Bytes of an entry's name, as on every file system that Nix runs on. */
export const MAX_ENTRY_NAME_LENGTH = 255;

/** Bytes of a symlink's target; at least one. */
export const MAX_TARGET_LENGTH = 4095;

/** What Nix puts before a number in names that collide on a case-insensitive file system. */
export const CASE_HACK_SUFFIX = "~nix~case~hack~";

/** Zeros after a string of `length` bytes. */
export function paddingOf(length: number): number {
  return (8 - (length % 8)) % 8;
}

/** Bytes of a string in the archive, with its length and padding. */
export function encodedLength(length: number): number {
  return 8 + length + paddingOf(length);
}

/** Writes a length of at most 2^53 and returns the offset behind it. `target` must hold 8 more bytes. */
export function writeLength(target: Uint8Array, offset: number, length: number): number {
  let low = length % 0x1_0000_0000;
  let high = Math.floor(length / 0x1_0000_0000);
  for (let index = 0; index < 4; index++) {
    target[offset + index] = low & 0xff;
    target[offset + 4 + index] = high & 0xff;
    low >>>= 8;
    high >>>= 8;
  }
  return offset + 8;
}

/** Writes a string and returns the offset behind it. `target` must hold `encodedLength` more bytes. */
export function writeString(target: Uint8Array, offset: number, bytes: Uint8Array): number {
  const start = writeLength(target, offset, bytes.length);
  target.set(bytes, start);
  const end = start + bytes.length;
  target.fill(0, end, end + paddingOf(bytes.length));
  return end + paddingOf(bytes.length);
}

/** The words, one after another, as they stand in an archive. */
export function encodeWords(...words: readonly string[]): Uint8Array {
  const encoded = words.map((word) => new TextEncoder().encode(word));
  const result = new Uint8Array(encoded.reduce((sum, bytes) => sum + encodedLength(bytes.length), 0));
  let offset = 0;
  for (const bytes of encoded) offset = writeString(result, offset, bytes);
  return result;
}

/** The order of entries: by bytes, as `memcmp`. JavaScript's own order of strings is another one. */
export function compareNames(left: Uint8Array, right: Uint8Array): number {
  return Buffer.compare(left, right);
}

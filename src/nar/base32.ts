/**
 * Nix's base32: the encoding of every hash in store paths, narinfos and NAR file names.
 *
 * It is not RFC 4648: its alphabet leaves out e, o, u and t, there is no padding, and the bits are read as
 * one little-endian number whose most significant digit is written first.
 * https://nix.dev/manual/nix/latest/protocols/nix32
 */
import { NixcacheError } from "../errors.ts";

/** The 32 digits in the order of their values. */
export const BASE32_ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz";

const INVALID = 255;

/** Digit values by character code; INVALID for all others, so one look-up checks and decodes. */
const VALUES = new Uint8Array(128).fill(INVALID);
for (let value = 0; value < 32; value++) VALUES[BASE32_ALPHABET.charCodeAt(value)] = value;

/** The number of characters for `size` bytes. */
export function base32Length(size: number): number {
  return Math.ceil((size * 8) / 5);
}

export function encodeBase32(bytes: Uint8Array): string {
  let text = "";
  for (let digit = base32Length(bytes.length) - 1; digit >= 0; digit--) {
    const bit = digit * 5;
    const index = bit >>> 3;
    const shift = bit & 7;
    const low = (bytes[index] ?? 0) >>> shift;
    const high = (bytes[index + 1] ?? 0) << (8 - shift);
    text += BASE32_ALPHABET[(low | high) & 31];
  }
  return text;
}

/**
 * Bytes of a base32 text. Strict: each byte string has exactly one text.
 * @throws `corrupt` for a foreign character, a length that no byte string has, or bits set beyond the last byte.
 */
export function decodeBase32(text: string): Uint8Array {
  const size = Math.floor((text.length * 5) / 8);
  if (base32Length(size) !== text.length) {
    throw refuse(text, `a length that whole bytes give, such as ${base32Length(size)}`);
  }
  const bytes = new Uint8Array(size);
  for (let digit = 0; digit < text.length; digit++) {
    const position = text.length - 1 - digit;
    const value = VALUES[text.charCodeAt(position)] ?? INVALID;
    if (value === INVALID) throw refuse(text, `only characters of ${BASE32_ALPHABET}`);
    const bit = digit * 5;
    const index = bit >>> 3;
    const shift = bit & 7;
    bytes[index] = (bytes[index] ?? 0) | (value << shift);
    const carry = value >>> (8 - shift);
    if (index + 1 < size) bytes[index + 1] = carry;
    else if (carry !== 0) throw refuse(text, "no bits set beyond the last byte");
  }
  return bytes;
}

/** Whether `length` characters of `text` from `start` are base32 digits; does not look at overflow bits. */
export function isBase32(text: string, start: number, length: number): boolean {
  if (start + length > text.length) return false;
  for (let index = start; index < start + length; index++) {
    if ((VALUES[text.charCodeAt(index)] ?? INVALID) === INVALID) return false;
  }
  return true;
}

function refuse(text: string, expected: string): NixcacheError {
  const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text;
  return new NixcacheError("corrupt", `base32: got ${JSON.stringify(shown)}, expected ${expected}`);
}

/**
 * Where each line of an index layer is in its text, and how it is found: by store hash, and by the file name of its
 * NAR. Plain numbers, 32 bytes a line: a million lines are loaded without an object each.
 *
 * Lines stand in the order of store hashes, whatever their order in the text; the place in that order is the *rank*.
 * A root layer may have several lines for one store hash, a segment's has one.
 * A key is a number made of a name. Names that differ may have the same key, so whoever finds one looks at the line.
 */
import { NixcacheError } from "../errors.ts";
import { BASE32_ALPHABET } from "../nar/base32.ts";

export interface LayerTable {
  /** Of each rank the key of its store hash, ascending. */
  readonly keys: Float64Array;
  /** Of each rank where its line begins in the text, in bytes. */
  readonly offsets: Float64Array;
  /** Of each rank the bytes of its line, without the newline. */
  readonly lengths: Uint32Array;
  /** Of each rank the key of its NAR's file name. */
  readonly fileKeys: Uint32Array;
  /** Pairs of a rank and the key of its NAR's file name, ascending by key. */
  readonly byFile: Uint32Array;
}

const VALUES = new Uint8Array(128);
for (const [value, digit] of [...BASE32_ALPHABET].entries()) VALUES[digit.charCodeAt(0)] = value;

/** 50 bits: a number of JavaScript holds them exactly. */
const KEY_DIGITS = 10;
const KEYS = 32 ** KEY_DIGITS;

/** The key of a store hash: in the order of store hashes. */
export function hashKey(text: string): number {
  let key = 0;
  for (let at = 0; at < KEY_DIGITS; at++) key = key * 32 + (VALUES[text.charCodeAt(at)] ?? 0);
  return key;
}

/** As `hashKey`, in bytes. */
export function hashKeyOf(bytes: Uint8Array, from: number): number {
  let key = 0;
  for (let at = from; at < from + KEY_DIGITS; at++) key = key * 32 + (VALUES[bytes[at] as number] ?? 0);
  return key;
}

/** The key of a file name: FNV-1a, 32 bits, of its characters. */
export function fileKey(file: string): number {
  let key = KEY_START;
  for (let at = 0; at < file.length; at++) key = nextKey(key, file.charCodeAt(at));
  return key >>> 0;
}

/** Before the first character. */
export const KEY_START = 0x811c9dc5;

/** With one character more; not yet unsigned. */
export function nextKey(key: number, character: number): number {
  return Math.imul(key ^ character, 0x01000193);
}

/** The first rank whose key is not below `key`. Hashes are evenly spread, so it is near where one would guess. */
export function firstRank({ keys }: LayerTable, key: number): number {
  const count = keys.length;
  const guess = Math.min(count, Math.floor((key / KEYS) * count));
  let [low, high, step] = [guess, guess, 16];
  while (low > 0 && (keys[low - 1] as number) >= key) {
    high = low;
    low = Math.max(0, low - step);
    step *= 4;
  }
  while (high < count && (keys[high] as number) < key) {
    low = high + 1;
    high = Math.min(count, high + step);
    step *= 4;
  }
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((keys[middle] as number) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Ranks whose NAR's file name has this key. */
export function* ranksOfFile({ byFile }: LayerTable, key: number): Generator<number> {
  let [low, high] = [0, byFile.length / 2];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((byFile[middle * 2 + 1] as number) < key) low = middle + 1;
    else high = middle;
  }
  for (; byFile[low * 2 + 1] === key; low++) yield byFile[low * 2] as number;
}

const FIRST_CAPACITY = 1024;

/** Takes lines down one by one, in whatever order. */
export class TableBuilder {
  #count = 0;
  #isSorted = true;
  #keys = new Float64Array(FIRST_CAPACITY);
  #offsets = new Float64Array(FIRST_CAPACITY);
  #lengths = new Uint32Array(FIRST_CAPACITY);
  #fileKeys = new Uint32Array(FIRST_CAPACITY);

  add(key: number, offset: number, length: number, fileKey: number): void {
    const at = this.#count++;
    if (at === this.#keys.length) this.#grow();
    // The same key again may be the same hash again.
    if (at > 0 && key <= (this.#keys[at - 1] as number)) this.#isSorted = false;
    this.#keys[at] = key;
    this.#offsets[at] = offset;
    this.#lengths[at] = length;
    this.#fileKeys[at] = fileKey;
  }

  /**
   * @param hashAt reads the store hash of the line at an offset; asked where keys are the same
   * @param most of the lines with one store hash so many stay, the last ones, in the order in which they came
   */
  finish(hashAt: (offset: number) => string, most = 1): LayerTable {
    const lines = this.#isSorted ? undefined : this.#sorted(hashAt, most);
    const chosen = <T extends Float64Array | Uint32Array>(values: T) => choose(values, lines, this.#count);
    const fileKeys = chosen(this.#fileKeys);
    return {
      keys: chosen(this.#keys),
      offsets: chosen(this.#offsets),
      lengths: chosen(this.#lengths),
      fileKeys,
      byFile: sortByFile(fileKeys),
    };
  }

  /** The lines that stay, in the order of their hashes. */
  #sorted(hashAt: (offset: number) => string, most: number): Uint32Array {
    const keys = this.#keys;
    const hash = (line: number) => hashAt(this.#offsets[line] as number);
    const compare = (a: number, b: number): number => {
      const [keyA, keyB] = [keys[a] as number, keys[b] as number];
      if (keyA !== keyB) return keyA - keyB;
      const [hashA, hashB] = [hash(a), hash(b)];
      return hashA === hashB ? a - b : hashA < hashB ? -1 : 1;
    };
    const lines = Uint32Array.from({ length: this.#count }, (_, line) => line).sort(compare);
    return lines.filter((line, place) => {
      const next = lines[place + most];
      return next === undefined || keys[line] !== keys[next] || hash(line) !== hash(next);
    });
  }

  #grow(): void {
    const grown = <T extends Float64Array | Uint32Array>(old: T, larger: T): T => {
      larger.set(old);
      return larger;
    };
    const capacity = this.#keys.length * 2;
    this.#keys = grown(this.#keys, new Float64Array(capacity));
    this.#offsets = grown(this.#offsets, new Float64Array(capacity));
    this.#lengths = grown(this.#lengths, new Uint32Array(capacity));
    this.#fileKeys = grown(this.#fileKeys, new Uint32Array(capacity));
  }
}

/** The values of these lines; without any, of the first so many. */
function choose<T extends Float64Array | Uint32Array>(
  values: T,
  lines: Uint32Array | undefined,
  count: number,
): T {
  const chosen = values.slice(0, lines?.length ?? count) as T;
  lines?.forEach((line, rank) => {
    chosen[rank] = values[line] as number;
  });
  return chosen;
}

/** As integers of 64 bits, of which the key is the upper half: without a comparison of ours. */
function sortByFile(fileKeys: Uint32Array): Uint32Array {
  const pairs = new Uint32Array(fileKeys.length * 2);
  for (let rank = 0; rank < fileKeys.length; rank++) {
    pairs[rank * 2] = rank;
    pairs[rank * 2 + 1] = fileKeys[rank] as number;
  }
  new BigUint64Array(pairs.buffer).sort();
  return pairs;
}

/** Behind the tables: a magic number, how many lines there are, where the tables begin, and a hash of them. */
export const FOOTER_BYTES = 32;

const MAGIC = 0x6e63_6c74;
const VERSION = 1;
const BYTES_PER_LINE = 32;

/** Of a table that begins at `offset` of its file, a multiple of eight. */
export function encodeTable(table: LayerTable, offset: number): Uint8Array {
  const count = table.keys.length;
  const bytes = new Uint8Array(count * BYTES_PER_LINE + FOOTER_BYTES);
  let at = 0;
  for (const values of [table.keys, table.offsets, table.lengths, table.fileKeys, table.byFile]) {
    bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), at);
    at += values.byteLength;
  }
  const footer = new DataView(bytes.buffer, at);
  footer.setUint32(0, MAGIC, true);
  footer.setUint32(4, VERSION, true);
  footer.setFloat64(8, count, true);
  footer.setFloat64(16, offset, true);
  footer.setBigUint64(24, BigInt(Bun.hash(bytes.subarray(0, at))), true);
  return bytes;
}

/** Where the table in a file of so many bytes begins. @throws `corrupt` for a footer that does not fit the file */
export function tableOffset(footer: Uint8Array, fileBytes: number, where: string): number {
  const view = new DataView(footer.buffer, footer.byteOffset, footer.byteLength);
  const [count, offset] = [view.getFloat64(8, true), view.getFloat64(16, true)];
  const fits = offset % 8 === 0 && offset + count * BYTES_PER_LINE + FOOTER_BYTES === fileBytes;
  if (view.getUint32(0, true) === MAGIC && view.getUint32(4, true) === VERSION && fits) return offset;
  throw new NixcacheError("corrupt", `${where}: it does not end as it was written`);
}

/** @param bytes from where the table begins to the end of the file. @throws `corrupt` */
export function decodeTable(bytes: Uint8Array<ArrayBuffer>, where: string): LayerTable {
  const tables = bytes.length - FOOTER_BYTES;
  const hash = new DataView(bytes.buffer, bytes.byteOffset + tables).getBigUint64(24, true);
  if (BigInt(Bun.hash(bytes.subarray(0, tables))) !== hash)
    throw new NixcacheError("corrupt", `${where}: its table has changed since it was written`);
  const count = tables / BYTES_PER_LINE;
  const { buffer, byteOffset } = bytes;
  return {
    keys: new Float64Array(buffer, byteOffset, count),
    offsets: new Float64Array(buffer, byteOffset + count * 8, count),
    lengths: new Uint32Array(buffer, byteOffset + count * 16, count),
    fileKeys: new Uint32Array(buffer, byteOffset + count * 20, count),
    byFile: new Uint32Array(buffer, byteOffset + count * 24, count * 2),
  };
}

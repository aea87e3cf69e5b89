/**
 * Finds the entries in the text of an index layer, without taking them apart: where each line is, and the keys by
 * which it is looked up. That takes a fraction of the time of reading the lines, and what a line says is checked by
 * whoever uses it. A line of any but the usual shape is read and checked here.
 */
import { isUtf8 } from "node:buffer";
import { NixcacheError } from "../errors.ts";
import { BASE32_ALPHABET } from "../nar/base32.ts";
import { STORE_HASH_LENGTH } from "../nar/store-path.ts";
import { type EntryLine, MAX_LINE_BYTES, mayHaveAttached } from "./entry.ts";
import { BrokenLine, type LayerHeader, LayerParser } from "./index-layer.ts";
import { fileKey, hashKey, hashKeyOf, KEY_START, nextKey, type TableBuilder } from "./layer-table.ts";

/** How nearly every line begins. */
export const LINE_START = '{"narinfo":"StorePath: /nix/store/';

/** Where its store hash ends. */
export const HASH_END = LINE_START.length + STORE_HASH_LENGTH;

/** The store hash of a line, by how it begins; undefined where it begins otherwise. */
export function hashInLine(text: string): string | undefined {
  return text.startsWith(LINE_START) && text.length >= HASH_END
    ? text.slice(LINE_START.length, HASH_END)
    : undefined;
}

const [NEWLINE, QUOTE, COMMA, ZERO, NINE, BACKSLASH] = [0x0a, 0x22, 0x2c, 0x30, 0x39, 0x5c];
const DIGEST_LENGTH = 64;

const pattern = (text: string): Uint8Array => Buffer.from(text);
const START = pattern(LINE_START);
const URL = pattern("\\nURL: nar/");
const LINE_BREAK = pattern("\\n");
const PARTS = pattern('","parts":[');
const PART = pattern('["sha256:');
const ADDED = pattern('],"added":');
const LISTING = pattern(',"listing":');
const END = pattern("}\n");

/** Digits of a store hash, and what the file name of a NAR has as it stands in a URL. */
const [HASH, FILE] = [1, 2];
const CHARACTERS = new Uint8Array(256);
for (const character of "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._-")
  CHARACTERS[character.charCodeAt(0)] = FILE;
for (const character of BASE32_ALPHABET) CHARACTERS[character.charCodeAt(0)] = HASH | FILE;

export class LayerScanner {
  readonly #table: TableBuilder;
  readonly #attached: (line: EntryLine) => void;
  readonly #parser: LayerParser;
  readonly #where: string;
  #broken: BrokenLine | undefined;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  /** Of a line whose end has not come. */
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  /** Bytes before those that are scanned. */
  #offset = 0;
  #line = 0;

  /**
   * @param where names the layer in messages
   * @param table is told of each entry
   * @param attached is given entries with attached files
   */
  constructor(where: string, table: TableBuilder, attached: (line: EntryLine) => void) {
    this.#where = where;
    this.#table = table;
    this.#attached = attached;
    this.#parser = new LayerParser(where);
  }

  /** What is wrong with the first line that is no entry; such lines are passed over. */
  get broken(): BrokenLine | undefined {
    return this.#broken;
  }

  /** The next bytes of the text. @throws `corrupt` with the line number */
  push(chunk: Uint8Array): void {
    const end = chunk.lastIndexOf(10) + 1;
    if (end > 0) {
      const lines = chunk.subarray(0, end);
      this.#scan(this.#pendingBytes === 0 ? lines : Buffer.concat([...this.#pending, lines]));
      this.#pending = [];
      this.#pendingBytes = 0;
    }
    if (end === chunk.length) return;
    // Copied: the owner of the chunk may use its memory again.
    this.#pending.push(chunk.slice(end));
    this.#pendingBytes += chunk.length - end;
    this.#checkLength(this.#pendingBytes);
  }

  /** The header, after the last bytes. @throws `corrupt` when the layer ended inside it, or inside a line */
  end(): LayerHeader {
    if (this.#pendingBytes > 0)
      throw new NixcacheError("corrupt", `${this.#where}: ended in the middle of line ${this.#line + 1}`);
    return this.#parser.header();
  }

  #scan(lines: Uint8Array): void {
    // Looking for one byte in a Buffer takes a fraction of the time that it takes in other arrays.
    const bytes = Buffer.from(lines.buffer, lines.byteOffset, lines.length);
    const isText = isUtf8(bytes);
    for (let start = 0; start < bytes.length; ) {
      const end = bytes.indexOf(NEWLINE, start);
      if (isText && this.#parser.isPastHeader && this.#addUsual(bytes, start, end)) {
        this.#line++;
        this.#parser.pass();
      } else this.#read(this.#decode(bytes.subarray(start, end)), this.#offset + start, end - start);
      start = end + 1;
    }
    this.#offset += bytes.length;
  }

  #decode(bytes: Uint8Array): string {
    try {
      return this.#decoder.decode(bytes);
    } catch (cause) {
      throw new NixcacheError("corrupt", `${this.#where}: line ${this.#line + 1} is not UTF-8`, { cause });
    }
  }

  /** A line that is taken apart. */
  #read(text: string, offset: number, bytes: number): void {
    this.#checkLength(bytes);
    this.#line++;
    const line = this.#entryIn(text);
    if (line === undefined) return;
    this.#table.add(hashKey(line.storeHash), offset, bytes, fileKey(line.file));
    if (mayHaveAttached(line)) this.#attached(line);
  }

  #entryIn(text: string): EntryLine | undefined {
    try {
      return this.#parser.push(text);
    } catch (error) {
      if (!(error instanceof BrokenLine)) throw error;
      this.#broken ??= error;
      return undefined;
    }
  }

  /** Takes the line down; false when it has another shape, such as one with attached files. */
  #addUsual(bytes: Buffer, start: number, end: number): boolean {
    if (end - start > MAX_LINE_BYTES || !isAt(bytes, start, START)) return false;
    const hash = start + START.length;
    for (let at = hash; at < hash + STORE_HASH_LENGTH; at++)
      if (((CHARACTERS[bytes[at] as number] as number) & HASH) === 0) return false;
    let at = hash + STORE_HASH_LENGTH;
    while (at < end && bytes[at] !== BACKSLASH) at++;
    if (!isAt(bytes, at, URL)) return false;
    at += URL.length;
    const file = at;
    let key = KEY_START;
    for (; ((CHARACTERS[bytes[at] as number] as number) & FILE) !== 0; at++)
      key = nextKey(key, bytes[at] as number);
    if (at === file || !isAt(bytes, at, LINE_BREAK)) return false;
    const narinfoEnd = bytes.indexOf(QUOTE, at);
    // A quote within the narinfo is escaped.
    if (narinfoEnd === -1 || bytes[narinfoEnd - 1] === BACKSLASH) return false;
    if (behindFiles(bytes, narinfoEnd) !== end + 1) return false;
    this.#table.add(hashKeyOf(bytes, hash), this.#offset + start, end - start, key >>> 0);
    return true;
  }

  #checkLength(bytes: number): void {
    if (bytes <= MAX_LINE_BYTES) return;
    throw new NixcacheError(
      "corrupt",
      `${this.#where}: line ${this.#line + 1} is longer than ${MAX_LINE_BYTES} bytes`,
    );
  }
}

function isAt(bytes: Uint8Array, from: number, wanted: Uint8Array): boolean {
  for (let at = 0; at < wanted.length; at++) if (bytes[from + at] !== wanted[at]) return false;
  return true;
}

/** What a line has behind its narinfo: parts, a time, perhaps a listing. @returns where it ends; -1 for anything else */
function behindFiles(bytes: Uint8Array, from: number): number {
  if (!isAt(bytes, from, PARTS)) return -1;
  let at = behindPart(bytes, from + PARTS.length);
  while (bytes[at] === COMMA) at = behindPart(bytes, at + 1);
  if (!isAt(bytes, at, ADDED)) return -1;
  at = behindDigits(bytes, at + ADDED.length);
  if (isAt(bytes, at, LISTING)) at = behindPart(bytes, at + LISTING.length);
  return isAt(bytes, at, END) ? at + END.length : -1;
}

/** `["sha256:…",1,2,3]`. Before the first byte for anything else. */
function behindPart(bytes: Uint8Array, from: number): number {
  if (!isAt(bytes, from, PART)) return -1;
  const at = from + PART.length + DIGEST_LENGTH;
  if (bytes[at] !== QUOTE || bytes[at + 1] !== COMMA) return -1;
  const end = behindNumbers(bytes, at + 2);
  return bytes[end] === 0x5d ? end + 1 : -1;
}

/** Numbers with commas between them. */
function behindNumbers(bytes: Uint8Array, from: number): number {
  let at = behindDigits(bytes, from);
  while (bytes[at] === COMMA) at = behindDigits(bytes, at + 1);
  return at;
}

function behindDigits(bytes: Uint8Array, from: number): number {
  let at = from;
  while ((bytes[at] as number) >= ZERO && (bytes[at] as number) <= NINE) at++;
  return at;
}

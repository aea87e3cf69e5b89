/**
 * An index layer on this machine's disk: its text as it was unpacked, and behind it the table of its lines
 * (`layer-table.ts`), which is held in memory. A look-up reads one line.
 *
 *     text, zeros up to a multiple of eight, table
 *
 * A file is written once, under another name until it is whole, and never changes. It is shared: whoever asks for one
 * gets it open, and releases it.
 */
import { closeSync, fdatasync, fdatasyncSync, fstatSync, readSync, rmSync } from "node:fs";
import { NixcacheError } from "../errors.ts";
import { STORE_HASH_LENGTH } from "../nar/store-path.ts";
import type { Digest } from "../oci/digest.ts";
import { isOwnFile } from "../system/own-folder.ts";
import { openPlainNow } from "../system/plain-file.ts";
import { type EntryLine, MAX_LINE_BYTES, parseLine } from "./entry.ts";
import { HASH_END, hashInLine, LINE_START } from "./layer-scan.ts";
import {
  decodeTable,
  FOOTER_BYTES,
  fileKey,
  firstRank,
  hashKey,
  type LayerTable,
  ranksOfFile,
  tableOffset,
} from "./layer-table.ts";
import { parseUsualLine } from "./usual-line.ts";

const NARINFO_START = '{"narinfo":"'.length;
const [QUOTE, BACKSLASH, LETTER_N, NEWLINE] = [0x22, 0x5c, 0x6e, 0x0a];

function syncFile(fd: number): Promise<void> {
  return new Promise((resolve, reject) => fdatasync(fd, (error) => (error ? reject(error) : resolve())));
}

/** Bytes that are read at once where the whole text is. */
const SCAN_BYTES = 1024 * 1024;

/** A look-up is done before another begins, so one buffer serves all of them. */
let line = Buffer.alloc(64 * 1024);

export interface OpenLayerFile {
  /** Of the layer's blob. */
  readonly digest: Digest;
  readonly path: string;
  /** Open for reading; closed with the last release. */
  readonly fd: number;
  readonly table: LayerTable;
  /** Where the table begins. */
  readonly textBytes: number;
  /** Told when it has been closed. */
  readonly closed: (file: LayerFile) => void;
}

export class LayerFile {
  readonly digest: Digest;
  readonly table: LayerTable;
  readonly #path: string;
  readonly #fd: number;
  readonly #textBytes: number;
  readonly #closed: (file: LayerFile) => void;
  /** A bit for each rank. */
  readonly #checked: Uint8Array;
  #users = 1;
  #isDamaged = false;
  #paths: number | undefined;

  constructor({ digest, path, fd, table, textBytes, closed }: OpenLayerFile) {
    this.digest = digest;
    this.table = table;
    this.#path = path;
    this.#fd = fd;
    this.#textBytes = textBytes;
    this.#closed = closed;
    this.#checked = new Uint8Array(Math.ceil(table.keys.length / 8));
  }

  /** @throws `corrupt` for a file that is not as it was written; what the file system says, such as ENOENT */
  static open(digest: Digest, path: string, closed: (file: LayerFile) => void): LayerFile {
    const fd = openPlainNow(path);
    try {
      const stats = fstatSync(fd);
      if (!isOwnFile(stats)) throw new NixcacheError("corrupt", `${path}: others can change it`);
      const { size } = stats;
      const footer = new Uint8Array(FOOTER_BYTES);
      if (size < FOOTER_BYTES || !isRead(fd, footer, size - FOOTER_BYTES))
        throw new NixcacheError("corrupt", `${path}: it is cut off`);
      const offset = tableOffset(footer, size, path);
      const bytes = new Uint8Array(size - offset);
      if (!isRead(fd, bytes, offset)) throw new NixcacheError("corrupt", `${path}: it is cut off`);
      return new LayerFile({ digest, path, fd, table: decodeTable(bytes, path), textBytes: offset, closed });
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** Store hashes: a root layer may have several lines for one. @throws `corrupt` */
  get paths(): number {
    this.#paths ??= this.table.keys.reduce((count, _, rank) => count + (this.isFirst(rank) ? 1 : 0), 0);
    return this.#paths;
  }

  /** Whether the line at a rank is the first one of its store hash. @throws `corrupt` */
  isFirst(rank: number): boolean {
    const { keys } = this.table;
    return rank === 0 || keys[rank] !== keys[rank - 1] || this.hashAt(rank) !== this.hashAt(rank - 1);
  }

  /** Whether a line was not what it was when it was written. */
  get isDamaged(): boolean {
    return this.#isDamaged || (this.#users > 0 && fstatSync(this.#fd).size < this.#textBytes);
  }

  retain(): this {
    this.#users++;
    return this;
  }

  release(): void {
    if (--this.#users > 0) return;
    closeSync(this.#fd);
    this.#closed(this);
  }

  /** Forces it to disk. @throws what the disk says; the file is gone then */
  async sync(): Promise<void> {
    this.retain();
    try {
      await syncFile(this.#fd);
    } catch (error) {
      this.#spoil();
      throw error;
    } finally {
      this.release();
    }
  }

  /** As `sync`. */
  syncNow(): void {
    try {
      fdatasyncSync(this.#fd);
    } catch (error) {
      this.#spoil();
      throw error;
    }
  }

  /** After a failure nobody knows what is on disk: the next update, by any process, reads the layer anew. */
  #spoil(): void {
    this.#isDamaged = true;
    rmSync(this.#path, { force: true });
  }

  /** The first rank of a store hash; undefined where there is no line for it. @throws `corrupt` */
  rankOf(hash: string): number | undefined {
    const { keys } = this.table;
    const key = hashKey(hash);
    for (let rank = firstRank(this.table, key); keys[rank] === key; rank++) {
      if (this.hashAt(rank) === hash) return rank;
    }
    return undefined;
  }

  /** The lines for a store hash. @throws `corrupt` */
  linesOf(hash: string): EntryLine[] {
    const lines: EntryLine[] = [];
    const { keys } = this.table;
    const key = hashKey(hash);
    for (let rank = firstRank(this.table, key); keys[rank] === key; rank++) {
      const found = this.hashAt(rank) === hash ? this.lineAt(rank) : undefined;
      if (found !== undefined) lines.push(found);
    }
    return lines;
  }

  /** The first rank from a store hash on, whether that is there or not. @throws `corrupt` */
  firstFrom(hash: string): number {
    const { keys } = this.table;
    const key = hashKey(hash);
    let rank = firstRank(this.table, key);
    while (keys[rank] === key && this.hashAt(rank) < hash) rank++;
    return rank;
  }

  /** Ranks of lines whose NAR may have this file name. */
  ranksOfFile(file: string): Iterable<number> {
    return ranksOfFile(this.table, fileKey(file));
  }

  /**
   * The narinfo of the line at a rank, if it is for this store hash. The question that is asked most: a line that was
   * checked once is not parsed again where its narinfo is what stands between two quotes with nothing escaped but
   * newlines. @throws `corrupt`
   */
  narinfoAt(rank: number, hash: string): string | undefined {
    if (!this.#isChecked(rank)) return this.#otherNarinfo(rank, hash);
    const length = this.#read(rank);
    const bytes = line;
    for (let at = 0; at < STORE_HASH_LENGTH; at++) {
      if (bytes[LINE_START.length + at] !== hash.charCodeAt(at)) return this.#otherNarinfo(rank, hash);
    }
    let [from, to] = [HASH_END, HASH_END];
    let others = 0;
    while (from < length) {
      const byte = bytes[from++] as number;
      if (byte === QUOTE) {
        if (others >= 128) break;
        return bytes.toString("latin1", NARINFO_START, to);
      }
      if (byte !== BACKSLASH) {
        others |= byte;
        bytes[to++] = byte;
      } else if (bytes[from++] === LETTER_N) bytes[to++] = NEWLINE;
      else break;
    }
    return this.#otherNarinfo(rank, hash);
  }

  #otherNarinfo(rank: number, hash: string): string | undefined {
    const found = this.lineAt(rank);
    return found?.storeHash === hash ? found.narinfo : undefined;
  }

  /**
   * The line at a rank, checked. Undefined for one that is no entry and never was: reading it again would not mend it.
   * @throws `corrupt` for one that is not as it was written
   */
  lineAt(rank: number): EntryLine | undefined {
    const parsed = this.#parsed(this.#read(rank), rank);
    if (parsed === undefined) return undefined;
    const byte = rank >> 3;
    this.#checked[byte] = (this.#checked[byte] as number) | (1 << (rank & 7));
    return parsed;
  }

  #isChecked(rank: number): boolean {
    return ((this.#checked[rank >> 3] as number) & (1 << (rank & 7))) !== 0;
  }

  /** The store hash of the line at a rank. @throws `corrupt` */
  hashAt(rank: number): string {
    const hash = hashInLine(line.toString("latin1", 0, this.#read(rank, HASH_END)));
    if (hash !== undefined && this.#isOf(rank, hash)) return hash;
    const found = this.lineAt(rank);
    if (found === undefined) throw this.#damaged(rank);
    return found.storeHash;
  }

  /** A line that has these bytes; undefined where there is none. Looks through the whole text. @throws `corrupt` */
  find(text: string): EntryLine | undefined {
    this.#checkOpen();
    const wanted = Buffer.from(text);
    const buffer = Buffer.alloc(SCAN_BYTES + wanted.length);
    for (let offset = 0; offset < this.#textBytes; offset += SCAN_BYTES) {
      const bytes = readSync(this.#fd, buffer, 0, Math.min(buffer.length, this.#textBytes - offset), offset);
      const found = buffer.subarray(0, bytes).indexOf(wanted);
      if (found !== -1) return this.#lineAround(offset + found);
    }
    return undefined;
  }

  #lineAround(offset: number): EntryLine | undefined {
    const { offsets, lengths } = this.table;
    const rank = offsets.findIndex(
      (start, rank) => start <= offset && offset < start + (lengths[rank] as number),
    );
    return rank === -1 ? undefined : this.lineAt(rank);
  }

  /** Reads the line at a rank, or its first bytes, into the buffer. @returns how many */
  #read(rank: number, most = MAX_LINE_BYTES): number {
    const { offsets, lengths } = this.table;
    this.#checkOpen();
    const length = Math.min(lengths[rank] as number, most);
    if (length > line.length) line = Buffer.alloc(length * 2);
    const read = readSync(this.#fd, line, 0, length, offsets[rank] as number);
    if (read < length) throw this.#damaged(rank);
    return length;
  }

  #parsed(length: number, rank: number): EntryLine | undefined {
    const text = line.toString("utf8", 0, length);
    try {
      const parsed = parseUsualLine(text) ?? parseLine(text, `${this.#path}, line ${rank}`);
      if (this.#isOf(rank, parsed.storeHash)) return parsed;
    } catch (error) {
      // A line of the usual shape was not checked when it was written.
      const hash = hashInLine(text);
      if (error instanceof NixcacheError && hash !== undefined && this.#isOf(rank, hash)) return undefined;
    }
    throw this.#damaged(rank);
  }

  /** Whether the line at a rank was one for this store hash when it was written. */
  #isOf(rank: number, hash: string): boolean {
    return hashKey(hash) === this.table.keys[rank];
  }

  /** The number of a file that was closed may be another's by now. */
  #checkOpen(): void {
    if (this.#users === 0) throw new NixcacheError("internal", `${this.#path} has been closed`);
  }

  #damaged(rank: number): NixcacheError {
    this.#isDamaged = true;
    return new NixcacheError("corrupt", `${this.#path}: its line ${rank} is not as it was written`, {
      hint: "It is read anew from the cache with the next refresh.",
    });
  }
}

function isRead(fd: number, into: Uint8Array, offset: number): boolean {
  for (let done = 0; done < into.length; ) {
    const read = readSync(fd, into, done, into.length - done, offset + done);
    if (read === 0) return false;
    done += read;
  }
  return true;
}

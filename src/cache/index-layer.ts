/**
 * An index layer: zstd of JSON Lines. A segment's first line is its publish record; a root layer's first
 * line says that it is one, and a line for each segment that it covers follows. Then the entries.
 *
 *     {"nixcache":1,"kind":"segment","record":{…}}        {"nixcache":1,"kind":"root","covers":2,"nonce":"…"}
 *     {"narinfo":"…","parts":[…],"added":…}               {"covers":"<generation>","record":{…}}
 *     …                                                   {"narinfo":"…","parts":[…],"added":…}
 *
 * This file is the text; compressing and storing it is `layer-blob.ts`.
 */
import { isUtf8 } from "node:buffer";
import { NixcacheError, preview } from "../errors.ts";
import { type EntryLine, formatLine, MAX_LINE_BYTES, parseLine } from "./entry.ts";
import { asObject, parseJsonObject } from "./json.ts";
import { decodeRecord, encodeRecord, type PublishRecord } from "./record.ts";
import { type GenerationName, parseGenerationName } from "./tags.ts";
import { parseUsualLine } from "./usual-line.ts";

const FORMAT = 1;

/**
 * Text of all lines of a header, in UTF-16 units: they are held in memory, while entries go to the database one
 * by one. Some 30,000 generations with 100 outputs each.
 */
const MAX_HEADER_LENGTH = 64 * 1024 * 1024;

/** A generation that a layer holds (its own) or covers. */
export interface Generation {
  readonly name: GenerationName;
  readonly record: PublishRecord;
}

export type LayerHeader =
  | { readonly kind: "segment"; readonly record: PublishRecord }
  | {
      readonly kind: "root";
      readonly covers: readonly Generation[];
      /** Makes the digest unique: a layer that a store damaged is replaced, not found there again. */
      readonly nonce: string;
    };

/** A line of a layer that is no entry, for whatever reason. The others are not concerned. */
export class BrokenLine extends NixcacheError {}

/** A layer that a later version wrote. */
export class LaterFormat extends NixcacheError {}

/**
 * The lines of a layer, each without its newline.
 * @throws `internal` for a line that readers would refuse: one such layer would close the cache to everybody.
 */
export function* formatLayer(
  header: LayerHeader,
  lines: Iterable<Pick<EntryLine, "narinfo" | "rest">>,
): Generator<string> {
  for (const line of unboundedLines(header, lines)) {
    // Three bytes at most for a UTF-16 unit: most lines need not be measured.
    if (line.length * 3 > MAX_LINE_BYTES && Buffer.byteLength(line) > MAX_LINE_BYTES) {
      throw new NixcacheError(
        "internal",
        `a line of the index has over ${MAX_LINE_BYTES} bytes: ${line.slice(0, 200)}`,
      );
    }
    yield line;
  }
}

function* unboundedLines(
  header: LayerHeader,
  lines: Iterable<Pick<EntryLine, "narinfo" | "rest">>,
): Generator<string> {
  if (header.kind === "segment") {
    yield JSON.stringify({ nixcache: FORMAT, kind: "segment", record: encodeRecord(header.record) });
  } else {
    yield JSON.stringify({
      nixcache: FORMAT,
      kind: "root",
      covers: header.covers.length,
      nonce: header.nonce,
    });
    for (const { name, record } of header.covers) {
      yield JSON.stringify({ covers: name, record: encodeRecord(record) });
    }
  }
  for (const line of lines) yield formatLine(line);
}

/** Takes a layer's lines one by one; the header is complete once the first entry has been returned. */
export class LayerParser {
  readonly #where: string;
  #line = 0;
  #kind: "segment" | "root" | undefined;
  #record: PublishRecord | undefined;
  #expectedCovers = 0;
  #headerLength = 0;
  #nonce = "";
  readonly #covers: Generation[] = [];
  readonly #names = new Set<GenerationName>();

  /** @param where names the layer in messages. */
  constructor(where: string) {
    this.#where = where;
  }

  /** Whether only entries follow. */
  get isPastHeader(): boolean {
    return this.#kind !== undefined && this.#covers.length >= this.#expectedCovers;
  }

  /** Somebody else has read the next line, an entry. */
  pass(): void {
    this.#line++;
  }

  /**
   * The entry on this line, or undefined for a line of the header.
   * @throws BrokenLine for one that should be an entry; `corrupt` for a header that is none, with the line number
   */
  push(text: string): EntryLine | undefined {
    this.#line++;
    if (this.isPastHeader) {
      const usual = parseUsualLine(text);
      if (usual !== undefined) return usual;
    }
    const where = `${this.#where}, line ${this.#line}`;
    if (this.#kind === undefined) this.#readFirst(text, where);
    else if (this.#covers.length < this.#expectedCovers) this.#readCover(text, where);
    else return entryIn(text, where);
    return undefined;
  }

  /** The header, after the last line. @throws `corrupt` when the layer ended inside it. */
  header(): LayerHeader {
    if (this.#kind === "segment" && this.#record) return { kind: "segment", record: this.#record };
    if (this.#kind === "root" && this.#covers.length === this.#expectedCovers) {
      return { kind: "root", covers: this.#covers, nonce: this.#nonce };
    }
    throw new NixcacheError("corrupt", `${this.#where}: ended after ${this.#line} lines, inside its header`);
  }

  #readFirst(text: string, where: string): void {
    const first = parseJsonObject(text, where);
    if (first.nixcache !== FORMAT) {
      throw new LaterFormat(
        "corrupt",
        `${where}: got format ${preview(first.nixcache)}, expected ${FORMAT}`,
        {
          hint: "A newer nixcache may have written this cache: update this one.",
        },
      );
    }
    if (first.kind === "segment") {
      this.#record = decodeRecord(first.record, where);
    } else if (first.kind === "root" && Number.isSafeInteger(first.covers) && Number(first.covers) >= 0) {
      this.#expectedCovers = Number(first.covers);
      this.#nonce = typeof first.nonce === "string" ? first.nonce : "";
    } else {
      throw new NixcacheError(
        "corrupt",
        `${where}: got ${preview(first)}, expected the header of an index layer`,
      );
    }
    this.#kind = first.kind;
  }

  #readCover(text: string, where: string): void {
    this.#headerLength += text.length;
    if (this.#headerLength > MAX_HEADER_LENGTH) {
      throw new NixcacheError(
        "corrupt",
        `${where}: the header is longer than ${MAX_HEADER_LENGTH} characters`,
      );
    }
    const cover = asObject(parseJsonObject(text, where), where);
    const name = parseGenerationName(cover.covers);
    if (name === undefined) {
      throw new NixcacheError(
        "corrupt",
        `${where}: got "covers": ${preview(cover.covers)}, expected the name of a generation`,
      );
    }
    if (this.#names.has(name)) throw new NixcacheError("corrupt", `${where}: it covers ${name} twice`);
    this.#names.add(name);
    this.#covers.push({ name, record: decodeRecord(cover.record, where) });
  }
}

/** @throws BrokenLine */
function entryIn(text: string, where: string): EntryLine {
  try {
    return parseLine(text, where);
  } catch (cause) {
    if (!(cause instanceof NixcacheError)) throw cause;
    throw new BrokenLine(cause.code, cause.message, { cause });
  }
}

/**
 * Cuts text that arrives in chunks into lines. A line is at most MAX_LINE_BYTES, and that is all it holds.
 * @throws `corrupt` for a longer line, and at the end for a last line without newline.
 */
export class LineSplitter {
  readonly #where: string;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  /** Of a line whose end has not come. */
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #line = 0;

  constructor(where: string) {
    this.#where = where;
  }

  *push(chunk: Uint8Array): Generator<string> {
    const end = chunk.lastIndexOf(10);
    if (end !== -1) yield* this.#lines(chunk.subarray(0, end));
    // Copied: the owner of the chunk may use its memory again.
    const rest = chunk.slice(end + 1);
    this.#pendingBytes += rest.length;
    this.#checkLength(this.#pendingBytes);
    if (rest.length > 0) this.#pending.push(rest);
  }

  end(): void {
    if (this.#pendingBytes > 0) {
      throw new NixcacheError("corrupt", `${this.#where}: ended in the middle of line ${this.#line + 1}`);
    }
  }

  /** Of all lines at once, which takes a fraction of the time of one by one. */
  *#lines(bytes: Uint8Array): Generator<string> {
    const all = this.#pending.length === 0 ? bytes : Buffer.concat([...this.#pending, bytes]);
    this.#pending = [];
    this.#pendingBytes = 0;
    for (const line of this.#decode(all).split("\n")) {
      // Three bytes at most for a UTF-16 unit.
      if (line.length * 3 > MAX_LINE_BYTES) this.#checkLength(Buffer.byteLength(line));
      this.#line++;
      yield line;
    }
  }

  #decode(bytes: Uint8Array): string {
    try {
      return this.#decoder.decode(bytes);
    } catch (cause) {
      let line = this.#line + 1;
      let from = 0;
      for (let end = bytes.indexOf(10); end !== -1; end = bytes.indexOf(10, from)) {
        if (!isUtf8(bytes.subarray(from, end))) break;
        from = end + 1;
        line++;
      }
      throw new NixcacheError("corrupt", `${this.#where}: line ${line} is not UTF-8`, { cause });
    }
  }

  #checkLength(bytes: number): void {
    if (bytes <= MAX_LINE_BYTES) return;
    throw new NixcacheError(
      "corrupt",
      `${this.#where}: line ${this.#line + 1} is longer than ${MAX_LINE_BYTES} bytes`,
    );
  }
}

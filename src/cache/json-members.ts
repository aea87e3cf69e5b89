/**
 * Cuts one JSON object that arrives in chunks into its members, and some of those into theirs, so that a file of any
 * size is read with the memory of one member. Only brackets, quotes and commas are looked at; whoever takes a member
 * parses it.
 */
import { NixcacheError, preview } from "../errors.ts";

export interface JsonMember {
  /** The member that it is a member of; undefined for one of the whole object. */
  readonly of: string | undefined;
  /** Empty for an element of a list. */
  readonly key: string;
  /** Its JSON text; undefined for one that is longer than allowed, or no UTF-8. */
  readonly value: string | undefined;
}

const [QUOTE, BACKSLASH, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a];
const [OPEN_OBJECT, CLOSE_OBJECT, OPEN_LIST, CLOSE_LIST] = [0x7b, 0x7d, 0x5b, 0x5d];

/** What comes next. `first` and `next` are members: behind a bracket, which may close again, and behind a comma. */
type Expected = "object" | "first" | "next" | "key" | "colon" | "value" | "inside" | "comma" | "nothing";

interface Level {
  readonly name: string | undefined;
  readonly close: number;
}

export class JsonMembers {
  readonly #where: string;
  readonly #opened: Readonly<Record<string, "object" | "list">>;
  /** Names of those that were there. */
  readonly found = new Set<string>();
  readonly #maxBytes: number;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });
  #expected: Expected = "object";
  #levels: Level[] = [];
  #key = "";
  /** Of the key or value that is being read. */
  #depth = 0;
  #inText = false;
  #isEscaped = false;
  #pieces: Uint8Array[] = [];
  #bytes = 0;

  /**
   * @param where names the file in messages
   * @param opened members of the whole object that are cut as well, where they are of that kind
   * @param maxBytes of a member's text
   */
  constructor(where: string, opened: Readonly<Record<string, "object" | "list">>, maxBytes: number) {
    this.#where = where;
    this.#opened = opened;
    this.#maxBytes = maxBytes;
  }

  /** @throws `corrupt` for what cannot go on as a JSON object. */
  *push(chunk: Uint8Array): Generator<JsonMember> {
    for (let at = 0; at < chunk.length; ) {
      const byte = chunk[at] as number;
      if (this.#expected === "key" || this.#expected === "inside") {
        const end = this.#endOfValue(chunk, at);
        this.#hold(chunk.subarray(at, end));
        if (end === undefined) return;
        at = end;
        const text = this.#take();
        if (this.#expected === "key") this.#readKey(text);
        else {
          this.#expected = "comma";
          yield { of: this.#levels.at(-1)?.name, key: this.#key, value: text };
        }
      } else {
        if (!isBlank(byte) && !this.#step(byte)) continue;
        at++;
      }
    }
  }

  /** @throws `corrupt` when the object has not ended. */
  end(): void {
    if (this.#expected !== "nothing") throw this.#wrong("nothing more");
  }

  /** Takes a byte of structure. Answers false for one that begins a key or a value and belongs to it. */
  #step(byte: number): boolean {
    const level = this.#levels.at(-1);
    const isList = level?.close === CLOSE_LIST;
    switch (this.#expected) {
      case "object":
        if (byte !== OPEN_OBJECT) break;
        this.#open(undefined, CLOSE_OBJECT);
        return true;
      case "first":
      case "next":
        if (this.#expected === "first" && byte === level?.close) return this.#close();
        if (isList) return this.#begin("", byte);
        if (byte !== QUOTE) break;
        this.#expected = "key";
        return false;
      case "colon":
        if (byte !== COLON) break;
        this.#expected = "value";
        return true;
      case "value":
        return this.#begin(this.#key, byte);
      case "comma":
        if (byte === level?.close) return this.#close();
        if (byte !== COMMA) break;
        this.#expected = "next";
        return true;
    }
    throw this.#wrong(preview(String.fromCharCode(byte)));
  }

  #begin(key: string, byte: number): boolean {
    this.#key = key;
    if (byte === COMMA || byte === COLON || byte === CLOSE_OBJECT || byte === CLOSE_LIST)
      throw this.#wrong(preview(String.fromCharCode(byte)));
    const kind = this.#levels.length === 1 && Object.hasOwn(this.#opened, key) && this.#opened[key];
    if (kind && byte === (kind === "list" ? OPEN_LIST : OPEN_OBJECT)) {
      this.found.add(key);
      this.#open(key, kind === "list" ? CLOSE_LIST : CLOSE_OBJECT);
      return true;
    }
    this.#expected = "inside";
    return false;
  }

  #open(name: string | undefined, close: number): void {
    this.#levels.push({ name, close });
    this.#expected = "first";
  }

  #close(): true {
    this.#levels.pop();
    this.#expected = this.#levels.length > 0 ? "comma" : "nothing";
    return true;
  }

  #readKey(text: string | undefined): void {
    let key: unknown;
    try {
      key = JSON.parse(text ?? "");
    } catch (cause) {
      throw new NixcacheError("corrupt", `${this.#where}: a name in it is not valid JSON`, { cause });
    }
    this.#key = key as string;
    this.#expected = "colon";
  }

  /** Where the key or value that goes on at `from` ends; undefined when it goes on in the next chunk. */
  #endOfValue(chunk: Uint8Array, from: number): number | undefined {
    let [depth, inText, isEscaped] = [this.#depth, this.#inText, this.#isEscaped];
    let end: number | undefined;
    for (let at = from; at < chunk.length && end === undefined; at++) {
      const byte = chunk[at] as number;
      if (isEscaped) isEscaped = false;
      else if (inText) {
        if (byte === BACKSLASH) isEscaped = true;
        else if (byte === QUOTE) {
          inText = false;
          if (depth === 0) end = at + 1;
        }
      } else if (byte === QUOTE) inText = true;
      else if (byte === OPEN_OBJECT || byte === OPEN_LIST) depth++;
      else if (byte === CLOSE_OBJECT || byte === CLOSE_LIST) {
        // Of a number or a word the bracket behind it is the end.
        if (depth === 0) end = at;
        else if (--depth === 0) end = at + 1;
      } else if (depth === 0 && (byte === COMMA || isBlank(byte))) end = at;
    }
    const ended = end !== undefined;
    [this.#depth, this.#inText, this.#isEscaped] = ended ? [0, false, false] : [depth, inText, isEscaped];
    return end;
  }

  /** What is too long is passed over, not kept. */
  #hold(piece: Uint8Array): void {
    this.#bytes += piece.length;
    if (this.#bytes > this.#maxBytes) this.#pieces = [];
    // Copied: the owner of the chunk may use its memory again.
    else this.#pieces.push(piece.slice());
  }

  #take(): string | undefined {
    const [only] = this.#pieces;
    const bytes = this.#pieces.length === 1 && only ? only : Buffer.concat(this.#pieces);
    const isTooLong = this.#bytes > this.#maxBytes;
    this.#pieces = [];
    this.#bytes = 0;
    if (isTooLong) return undefined;
    try {
      return this.#decoder.decode(bytes);
    } catch {
      return undefined;
    }
  }

  #wrong(got: string): NixcacheError {
    const expected = {
      object: "a JSON object",
      first: "a member or a closing bracket",
      next: "a member",
      key: "the rest of a name",
      colon: "a colon",
      value: "a value",
      inside: "the rest of a value",
      comma: "a comma or a closing bracket",
      nothing: "its end",
    }[this.#expected];
    return new NixcacheError("corrupt", `${this.#where}: not valid JSON: got ${got}, expected ${expected}`);
  }
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

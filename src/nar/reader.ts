/**
 * A streaming reader of NARs that accepts what the strictest Nix accepts, and nothing else.
 *
 * The core is a state machine into which bytes are pushed: it stands in pipes where a promise for each word
 * would cost more than all the rest. It never allocates what a length claims; besides the names of the open
 * directories it keeps one word of at most 4096 bytes.
 */
import { NixcacheError } from "../errors.ts";
import {
  compareNames,
  MAX_ENTRY_NAME_LENGTH,
  MAX_NAR_DEPTH,
  MAX_TARGET_LENGTH,
  NAR_MAGIC,
  paddingOf,
} from "./archive.ts";

export interface NarFile {
  readonly executable: boolean;
  /** Bytes. */
  readonly size: number;
  /** Where its contents start, in bytes from the start of the NAR. */
  readonly offset: number;
}

/**
 * Receives what the archive holds, in its order. `name` is the last component, as bytes, and undefined for
 * the root. Names and targets may be kept.
 */
export interface NarVisitor {
  directory?(name: Uint8Array | undefined): void;
  /** The directory that began last and has not ended yet is complete. */
  endDirectory?(): void;
  regular?(name: Uint8Array | undefined, file: NarFile): void;
  /** A piece of the file that began last; a view that is only valid until the method returns. */
  contents?(bytes: Uint8Array): void;
  symlink?(name: Uint8Array | undefined, target: Uint8Array): void;
}

/** What the grammar expects next. */
enum State {
  Magic,
  Open,
  Type,
  Kind,
  ExecutableOrContents,
  ExecutableValue,
  Contents,
  ContentsSize,
  Target,
  TargetValue,
  EntryOrClose,
  EntryOpen,
  Name,
  NameValue,
  Node,
  CloseNode,
  CloseEntry,
  End,
}

/** What the bytes at hand are. */
enum Mode {
  Length,
  Word,
  Contents,
  Padding,
}

/** The longest keyword is the magic; what is longer is none, and is not read. */
const MAX_KEYWORD_LENGTH = NAR_MAGIC.length;

const WORDS = {
  magic: Buffer.from(NAR_MAGIC),
  open: Buffer.from("("),
  close: Buffer.from(")"),
  type: Buffer.from("type"),
  regular: Buffer.from("regular"),
  symlink: Buffer.from("symlink"),
  directory: Buffer.from("directory"),
  executable: Buffer.from("executable"),
  contents: Buffer.from("contents"),
  target: Buffer.from("target"),
  entry: Buffer.from("entry"),
  name: Buffer.from("name"),
  node: Buffer.from("node"),
} as const;

const EXPECTED: Readonly<Record<State, string>> = {
  [State.Magic]: `"${NAR_MAGIC}"`,
  [State.Open]: '"("',
  [State.Type]: '"type"',
  [State.Kind]: '"regular", "symlink" or "directory"',
  [State.ExecutableOrContents]: '"executable" or "contents"',
  [State.ExecutableValue]: 'an empty string after "executable"',
  [State.Contents]: '"contents"',
  [State.ContentsSize]: "the size of a file",
  [State.Target]: '"target"',
  [State.TargetValue]: `a symlink target of 1 to ${MAX_TARGET_LENGTH} bytes without NUL`,
  [State.EntryOrClose]: '"entry" or ")"',
  [State.EntryOpen]: '"("',
  [State.Name]: '"name"',
  [State.NameValue]: `a name of 1 to ${MAX_ENTRY_NAME_LENGTH} bytes`,
  [State.Node]: '"node"',
  [State.CloseNode]: '")"',
  [State.CloseEntry]: '")"',
  [State.End]: "the end",
};

export class NarReader {
  readonly #visitor: NarVisitor;
  readonly #where: string;
  #state: State = State.Magic;
  #mode: Mode = Mode.Length;
  /** Bytes of this chunk's predecessors. */
  #base = 0;
  /** A length or word that is split between chunks; its first #gathered bytes are here. */
  readonly #scratch = new Uint8Array(MAX_TARGET_LENGTH + 8);
  #gathered = 0;
  /** Where the current word began, with its length, in bytes from the start. */
  #wordOffset = 0;
  #wordLength = 0;
  /** Bytes of contents, or of padding behind them, that are still to come. */
  #left = 0;
  #padding = 0;
  #executable = false;
  #name: Uint8Array | undefined;
  /** For each open directory the name of its last entry. */
  readonly #lastNames: (Uint8Array | undefined)[] = [];
  #failure: unknown;

  /** @param where names the archive in errors. */
  constructor(visitor: NarVisitor = {}, where = "NAR") {
    this.#visitor = visitor;
    this.#where = where;
  }

  /** Bytes read so far. */
  get offset(): number {
    return this.#base;
  }

  /**
   * Reads on. Once it has thrown, it throws the same at every call.
   * @throws `corrupt`, with the offset of the byte, for anything that is no NAR.
   */
  write(chunk: Uint8Array): void {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      let at = 0;
      while (at < chunk.length) at = this.#step(chunk, at);
      this.#base += chunk.length;
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }

  /** Says that nothing follows. @throws `corrupt` when the archive is not complete. */
  end(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#state === State.End && this.#mode === Mode.Length) return;
    const inside = this.#mode === Mode.Contents || this.#mode === Mode.Padding;
    const expected = inside ? `${this.#left} more bytes` : EXPECTED[this.#state];
    this.#failure = this.#refuse(this.#base, "the end of the data", expected);
    throw this.#failure;
  }

  /** Consumes something at `at` and returns the offset behind it. */
  #step(chunk: Uint8Array, at: number): number {
    switch (this.#mode) {
      case Mode.Length: {
        if (this.#state === State.End) throw this.#refuse(this.#base + at, "more bytes", "the end");
        if (this.#gathered === 0) {
          this.#wordOffset = this.#base + at;
          if (at + 8 <= chunk.length) {
            this.#length(chunk, at);
            return at + 8;
          }
        }
        const next = this.#gather(chunk, at, 8);
        if (this.#gathered === 8) {
          this.#gathered = 0;
          this.#length(this.#scratch, 0);
        }
        return next;
      }
      case Mode.Word: {
        const size = this.#wordLength + paddingOf(this.#wordLength);
        if (this.#gathered === 0 && at + size <= chunk.length) {
          this.#mode = Mode.Length;
          this.#word(chunk, at);
          return at + size;
        }
        const next = this.#gather(chunk, at, size);
        if (this.#gathered === size) {
          this.#gathered = 0;
          this.#mode = Mode.Length;
          this.#word(this.#scratch, 0);
        }
        return next;
      }
      case Mode.Contents: {
        const size = Math.min(this.#left, chunk.length - at);
        this.#left -= size;
        this.#visitor.contents?.(chunk.subarray(at, at + size));
        if (this.#left === 0) this.#endContents();
        return at + size;
      }
      case Mode.Padding: {
        if (chunk[at] !== 0) throw this.#refusePadding(this.#base + at);
        this.#left--;
        if (this.#left === 0) this.#mode = Mode.Length;
        return at + 1;
      }
    }
  }

  #gather(chunk: Uint8Array, at: number, size: number): number {
    const end = Math.min(chunk.length, at + size - this.#gathered);
    this.#scratch.set(chunk.subarray(at, end), this.#gathered);
    this.#gathered += end - at;
    return end;
  }

  #length(bytes: Uint8Array, at: number): void {
    const low = readUint32(bytes, at);
    const high = readUint32(bytes, at + 4);
    const length = high * 0x1_0000_0000 + low;
    if (this.#state === State.ContentsSize) {
      // Beyond 2^53 numbers are not exact; no file system holds such files either.
      if (high >= 0x20_0000) throw this.#refuseWord(`a size of ${length} bytes`);
      this.#file(length);
      return;
    }
    if (length > this.#longest()) throw this.#refuseWord(`a string of ${length} bytes`);
    this.#wordLength = length;
    if (length === 0) this.#word(bytes, at + 8);
    else this.#mode = Mode.Word;
  }

  #longest(): number {
    if (this.#state === State.NameValue) return MAX_ENTRY_NAME_LENGTH;
    return this.#state === State.TargetValue ? MAX_TARGET_LENGTH : MAX_KEYWORD_LENGTH;
  }

  #file(size: number): void {
    const file = { executable: this.#executable, size, offset: this.#wordOffset + 8 };
    this.#visitor.regular?.(this.#name, file);
    this.#state = State.CloseNode;
    this.#left = size;
    this.#padding = paddingOf(size);
    if (size > 0) this.#mode = Mode.Contents;
  }

  #endContents(): void {
    this.#left = this.#padding;
    this.#mode = this.#left > 0 ? Mode.Padding : Mode.Length;
  }

  /** A complete word of #wordLength bytes at `at`, its padding behind it. */
  #word(bytes: Uint8Array, at: number): void {
    const end = at + this.#wordLength;
    for (let index = 0; index < paddingOf(this.#wordLength); index++) {
      if (bytes[end + index] !== 0)
        throw this.#refusePadding(this.#wordOffset + 8 + this.#wordLength + index);
    }
    const next = this.#next(bytes, at, end);
    if (next === undefined) throw this.#refuseWord(quote(bytes.subarray(at, end)));
    this.#state = next;
  }

  /** What the grammar expects after the word from `at` to `end`; undefined when it did not expect this word. */
  #next(bytes: Uint8Array, at: number, end: number): State | undefined {
    const is = (word: Uint8Array): boolean => end - at === word.length && matches(bytes, at, word);
    switch (this.#state) {
      case State.Magic:
        if (is(WORDS.magic)) return State.Open;
        break;
      case State.Open:
        if (!is(WORDS.open)) break;
        if (this.#lastNames.length >= MAX_NAR_DEPTH) {
          throw this.#refuseWord("a deeper directory", `at most ${MAX_NAR_DEPTH} levels`);
        }
        return State.Type;
      case State.Type:
        if (is(WORDS.type)) return State.Kind;
        break;
      case State.Kind:
        this.#executable = false;
        if (is(WORDS.regular)) return State.ExecutableOrContents;
        if (is(WORDS.symlink)) return State.Target;
        if (!is(WORDS.directory)) break;
        this.#lastNames.push(undefined);
        this.#visitor.directory?.(this.#name);
        return State.EntryOrClose;
      case State.ExecutableOrContents:
        if (is(WORDS.contents)) return State.ContentsSize;
        if (!is(WORDS.executable)) break;
        this.#executable = true;
        return State.ExecutableValue;
      case State.ExecutableValue:
        if (end === at) return State.Contents;
        break;
      case State.Contents:
        if (is(WORDS.contents)) return State.ContentsSize;
        break;
      case State.Target:
        if (is(WORDS.target)) return State.TargetValue;
        break;
      case State.TargetValue: {
        const target = copyOf(bytes, at, end);
        if (target.length === 0 || target.includes(0)) break;
        this.#visitor.symlink?.(this.#name, target);
        return State.CloseNode;
      }
      case State.EntryOrClose:
        if (is(WORDS.entry)) return State.EntryOpen;
        if (!is(WORDS.close)) break;
        this.#lastNames.pop();
        this.#visitor.endDirectory?.();
        return this.#nodeClosed();
      case State.EntryOpen:
        if (is(WORDS.open)) return State.Name;
        break;
      case State.Name:
        if (is(WORDS.name)) return State.NameValue;
        break;
      case State.NameValue:
        this.#entry(copyOf(bytes, at, end));
        return State.Node;
      case State.Node:
        if (is(WORDS.node)) return State.Open;
        break;
      case State.CloseNode:
        if (is(WORDS.close)) return this.#nodeClosed();
        break;
      case State.CloseEntry:
        if (is(WORDS.close)) return State.EntryOrClose;
        break;
    }
    return undefined;
  }

  #nodeClosed(): State {
    return this.#lastNames.length === 0 ? State.End : State.CloseEntry;
  }

  #entry(name: Uint8Array): void {
    const dots = name.length <= 2 && name.every((byte) => byte === 0x2e);
    // `dots` covers the empty name too.
    if (dots || name.includes(0x2f) || name.includes(0)) {
      throw this.#refuseWord(`the name ${quote(name)}`, 'a name other than "." and ".." without "/" and NUL');
    }
    const last = this.#lastNames.at(-1);
    const order = last === undefined ? -1 : compareNames(last, name);
    if (last !== undefined && order >= 0) {
      const what = order === 0 ? `the name ${quote(name)} twice` : `the name ${quote(name)}`;
      throw this.#refuseWord(what, `one that sorts after ${quote(last)}`);
    }
    this.#lastNames[this.#lastNames.length - 1] = name;
    this.#name = name;
  }

  #refuseWord(got: string, expected: string = EXPECTED[this.#state]): NixcacheError {
    return this.#refuse(this.#wordOffset, got, expected);
  }

  #refusePadding(offset: number): NixcacheError {
    return this.#refuse(offset, "a byte that is not zero", "zeros up to the next multiple of 8");
  }

  #refuse(offset: number, got: string, expected: string): NixcacheError {
    return new NixcacheError("corrupt", `${this.#where} at byte ${offset}: got ${got}, expected ${expected}`);
  }
}

/**
 * Reads a whole NAR and returns its size in bytes.
 * @throws `corrupt`; and whatever `chunks` or the visitor throw.
 */
export async function readNar(
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  visitor: NarVisitor = {},
  where = "NAR",
): Promise<number> {
  const reader = new NarReader(visitor, where);
  for await (const chunk of chunks) reader.write(chunk);
  reader.end();
  return reader.offset;
}

function readUint32(bytes: Uint8Array, at: number): number {
  const low = (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16);
  return low + (bytes[at + 3] ?? 0) * 0x100_0000;
}

function matches(bytes: Uint8Array, at: number, word: Uint8Array): boolean {
  for (let index = 0; index < word.length; index++) if (bytes[at + index] !== word[index]) return false;
  return true;
}

/** A copy: `subarray` would keep the chunk, and `slice` of a Buffer is no copy. */
function copyOf(bytes: Uint8Array, start: number, end: number): Uint8Array {
  return new Uint8Array(bytes.subarray(start, end));
}

/** Names need not be UTF-8: what is not shows as U+FFFD. */
function quote(bytes: Uint8Array): string {
  const text = new TextDecoder().decode(bytes);
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text);
}

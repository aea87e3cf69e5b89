/** Trees in memory, their NARs and what a reader sees of them: written from the specification, for the tests. */
import {
  compareNames,
  encodedLength,
  encodeWords,
  writeLength,
  writeString,
} from "../../../src/nar/archive.ts";
import { NarReader, type NarVisitor } from "../../../src/nar/reader.ts";

export type Tree =
  | { type: "regular"; executable: boolean; contents: Uint8Array }
  | { type: "symlink"; target: Uint8Array }
  | { type: "directory"; entries: [name: Uint8Array, child: Tree][] };

export const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

/** A string of an archive. */
export function str(value: string | Uint8Array): Uint8Array {
  const bytes = typeof value === "string" ? bytesOf(value) : value;
  const result = new Uint8Array(encodedLength(bytes.length));
  writeString(result, 0, bytes);
  return result;
}

/** A length alone, with no bytes behind it. */
export function len(length: number): Uint8Array {
  const result = new Uint8Array(8);
  writeLength(result, 0, length);
  return result;
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

export function narOf(tree: Tree): Uint8Array {
  return concat(encodeWords("nix-archive-1"), nodeOf(tree));
}

function nodeOf(tree: Tree): Uint8Array {
  switch (tree.type) {
    case "regular": {
      const words = tree.executable ? ["executable", ""] : [];
      return concat(encodeWords("(", "type", "regular", ...words, "contents"), str(tree.contents), str(")"));
    }
    case "symlink":
      return concat(encodeWords("(", "type", "symlink", "target"), str(tree.target), str(")"));
    case "directory": {
      const entries = tree.entries.map(([name, child]) =>
        concat(encodeWords("entry", "(", "name"), str(name), str("node"), nodeOf(child), str(")")),
      );
      return concat(encodeWords("(", "type", "directory"), ...entries, str(")"));
    }
  }
}

/** A visitor that puts the tree together again. */
export class TreeBuilder implements NarVisitor {
  root: Tree | undefined;
  /** Of every regular file, in order. */
  readonly offsets: number[] = [];
  readonly #open: [name: Uint8Array, child: Tree][][] = [];
  #file: { type: "regular"; executable: boolean; contents: Uint8Array } | undefined;

  #add(name: Uint8Array | undefined, tree: Tree): void {
    if (name === undefined) this.root = tree;
    else this.#open.at(-1)?.push([name, tree]);
  }
  directory(name: Uint8Array | undefined): void {
    const entries: [Uint8Array, Tree][] = [];
    this.#add(name, { type: "directory", entries });
    this.#open.push(entries);
  }
  endDirectory(): void {
    this.#open.pop();
  }
  regular(name: Uint8Array | undefined, file: { executable: boolean; size: number; offset: number }): void {
    this.#file = { type: "regular", executable: file.executable, contents: new Uint8Array() };
    this.offsets.push(file.offset);
    this.#add(name, this.#file);
  }
  contents(bytes: Uint8Array): void {
    if (this.#file !== undefined) this.#file.contents = concat(this.#file.contents, bytes);
  }
  symlink(name: Uint8Array | undefined, target: Uint8Array): void {
    this.#add(name, { type: "symlink", target });
  }
}

/** The tree in an archive that is written in pieces of at most `size` bytes. */
export function treeOf(nar: Uint8Array, size = nar.length): TreeBuilder {
  const builder = new TreeBuilder();
  const reader = new NarReader(builder);
  for (let at = 0; at < nar.length; at += size) reader.write(nar.subarray(at, at + size));
  reader.end();
  return builder;
}

export function sortEntries(entries: [Uint8Array, Tree][]): [Uint8Array, Tree][] {
  return entries.sort(([left], [right]) => compareNames(left, right));
}

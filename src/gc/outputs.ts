/**
 * Which blobs each published output leads to: those of its closure, as far as the cache has it. The entries of the
 * local index are read once each, into numbers, so that thousands of closures can be walked.
 */
import { allParts, filesOf } from "../cache/entry.ts";
import type { IndexReader } from "../cache/index-reader.ts";
import { isStoreHash, STORE_HASH_LENGTH } from "../nar/store-path.ts";
import type { Holdings } from "./holdings.ts";

/** Distinct paths of a cache, beyond which outputs are not measured: some 300 MiB. */
export const MAX_PATHS = 1_000_000;

interface Node {
  /** Numbers of blobs in the holdings. */
  readonly blobs: readonly number[];
  /** Places of nodes. */
  readonly references: readonly number[];
}

export class OutputBlobs {
  readonly #view: IndexReader;
  readonly #holdings: Holdings;
  /** Store hash → place. */
  readonly #places = new Map<string, number>();
  readonly #hashes: string[] = [];
  readonly #nodes: (Node | undefined)[] = [];
  /** By place, the walk that came by last. */
  readonly #seen: number[] = [];
  #walk = 0;

  constructor(view: IndexReader, holdings: Holdings) {
    this.#view = view;
    this.#holdings = holdings;
  }

  /** Numbers of the blobs that the closures of these store paths need, each once. */
  of(paths: readonly string[]): Set<number> {
    const walk = ++this.#walk;
    const blobs = new Set<number>();
    const waiting: number[] = [];
    const visit = (place: number) => {
      if (this.#seen[place] === walk) return;
      this.#seen[place] = walk;
      waiting.push(place);
    };
    for (const place of this.#placesOf(paths.map((path) => path.slice(path.lastIndexOf("/") + 1))))
      visit(place);
    for (let place = waiting.pop(); place !== undefined; place = waiting.pop()) {
      const node = this.#node(place);
      for (const blob of node.blobs) blobs.add(blob);
      for (const reference of node.references) visit(reference);
    }
    return blobs;
  }

  #place(hash: string): number {
    const known = this.#places.get(hash);
    if (known !== undefined) return known;
    this.#places.set(hash, this.#hashes.length);
    return this.#hashes.push(hash) - 1;
  }

  #node(place: number): Node {
    const node = this.#nodes[place] ?? this.#read(this.#hashes[place] as string);
    this.#nodes[place] = node;
    return node;
  }

  #read(hash: string): Node {
    const line = this.#view.line(hash);
    if (line === undefined) return NOTHING;
    const parts = allParts(filesOf(line.rest, hash));
    const blobs = new Set(parts.map(({ blob, size }) => this.#holdings.number({ digest: blob, size })));
    const references = /^References: (.*)$/m.exec(line.narinfo)?.[1] ?? "";
    return { blobs: [...blobs], references: this.#placesOf(references.split(" ")) };
  }

  /** Records are a publisher's word: what is no store path is passed over. */
  #placesOf(baseNames: readonly string[]): number[] {
    const hashes = baseNames.map((name) => name.slice(0, STORE_HASH_LENGTH));
    return hashes.filter(isStoreHash).map((hash) => this.#place(hash));
  }
}

const NOTHING: Node = { blobs: [], references: [] };

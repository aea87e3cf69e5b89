/**
 * The graph of references between the paths of a cache, read out of narinfos as walks come by, each once. Paths are
 * numbered, so that a hundred thousand of them with their references are some 30 MiB.
 */
import { readSizes } from "../cache/catalog.ts";
import { isStoreHash, STORE_HASH_LENGTH } from "../nar/store-path.ts";
import { compact } from "./compact.ts";

/** What a path and all that it refers to have together, as far as the cache has it. */
export interface ClosureSize {
  readonly paths: number;
  readonly narSize: number;
  readonly fileSize: number;
  /** Number of references that the cache does not have: upstream caches do. */
  readonly elsewhere: number;
}

export interface Chain {
  /** Place of the root in the list. */
  readonly root: number;
  /** Store hashes from the root to the path, both among them. */
  readonly hashes: readonly string[];
}

interface Node {
  readonly narSize: number;
  readonly fileSize: number;
  /** Numbers of paths. */
  readonly references: Uint32Array;
}

export class References {
  readonly #find: (hash: string) => string | undefined;
  readonly #numbers = new Map<string, number>();
  readonly #hashes: string[] = [];
  /** By number; null for a path that the cache does not have. */
  readonly #nodes: (Node | null | undefined)[] = [];
  /** By number, the walk that came by last. */
  readonly #seen: number[] = [];
  #walk = 0;

  /** @param find the narinfo of a store hash */
  constructor(find: (hash: string) => string | undefined) {
    this.#find = find;
  }

  closureSize(hash: string): ClosureSize {
    let [paths, narSize, fileSize, elsewhere] = [0, 0, 0, 0];
    const waiting = this.#begin([hash]);
    for (let number = waiting.pop(); number !== undefined; number = waiting.pop()) {
      const node = this.#node(number);
      if (node === null) {
        elsewhere++;
        continue;
      }
      paths++;
      narSize += node.narSize;
      fileSize += node.fileSize;
      const { references } = node;
      for (let at = 0; at < references.length; at++) {
        const reference = references[at] as number;
        if (this.#isNew(reference)) waiting.push(reference);
      }
    }
    return { paths, narSize, fileSize, elsewhere };
  }

  /** A shortest chain of references from one of the roots; undefined where none leads to the path. */
  shortestChain(roots: readonly string[], to: string): Chain | undefined {
    const target = this.#number(to);
    const queue = this.#begin(roots);
    const from = new Map<number, number>();
    for (let at = 0; at < queue.length; at++) {
      const number = queue[at] as number;
      if (number === target) return this.#chain(number, from, roots);
      for (const reference of this.#node(number)?.references ?? []) {
        if (!this.#isNew(reference)) continue;
        from.set(reference, number);
        queue.push(reference);
      }
    }
    return undefined;
  }

  #chain(end: number, from: ReadonlyMap<number, number>, roots: readonly string[]): Chain {
    const hashes: string[] = [];
    for (let number: number | undefined = end; number !== undefined; number = from.get(number))
      hashes.unshift(this.#hashes[number] as string);
    return { root: roots.indexOf(hashes[0] as string), hashes };
  }

  /** Starts a walk. */
  #begin(hashes: readonly string[]): number[] {
    this.#walk++;
    return hashes.map((hash) => this.#number(hash)).filter((number) => this.#isNew(number));
  }

  #isNew(number: number): boolean {
    if (this.#seen[number] === this.#walk) return false;
    this.#seen[number] = this.#walk;
    return true;
  }

  #number(hash: string): number {
    const known = this.#numbers.get(hash);
    if (known !== undefined) return known;
    // Reserved at once: references may lead in circles.
    this.#numbers.set(hash, this.#hashes.length);
    this.#seen.push(0);
    return this.#hashes.push(hash) - 1;
  }

  #node(number: number): Node | null {
    let node = this.#nodes[number];
    if (node === undefined) {
      node = this.#read(this.#hashes[number] as string);
      this.#nodes[number] = node;
    }
    return node;
  }

  #read(hash: string): Node | null {
    const narinfo = this.#find(hash);
    if (narinfo === undefined) return null;
    const { narSize, fileSize } = readSizes(narinfo);
    const baseNames = /^References: (.*)$/m.exec(narinfo)?.[1]?.split(" ") ?? [];
    const hashes = baseNames.map((name) => compact(name.slice(0, STORE_HASH_LENGTH))).filter(isStoreHash);
    return {
      narSize,
      fileSize: fileSize ?? 0,
      references: Uint32Array.from(hashes, (of) => this.#number(of)),
    };
  }
}

/**
 * Which blobs each generation holds, by its segment and hold manifests. The local index does not say: it is the
 * union of all generations. Blobs are numbered, so that thousands of generations with thousands of blobs each
 * are some MiB.
 */
import type { BlobReference } from "../cache/manifests.ts";
import { type GenerationId, generationId, parseTag } from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import { decodeManifest } from "../oci/manifest.ts";
import type { ProtocolContext } from "../protocol/context.ts";

export class Holdings {
  readonly #numbers = new Map<Digest, number>();
  readonly #sizes: number[] = [];
  readonly #held = new Map<GenerationId, Uint32Array>();

  /** Everything that somebody holds. */
  get owners(): GenerationId[] {
    return [...this.#held.keys()];
  }

  /** The number of a blob, which it has from now on. */
  number({ digest, size }: BlobReference): number {
    const known = this.#numbers.get(digest);
    if (known !== undefined) return known;
    this.#numbers.set(digest, this.#sizes.length);
    return this.#sizes.push(size) - 1;
  }

  add(owner: GenerationId, blobs: readonly BlobReference[]): void {
    const numbers = new Set(this.#held.get(owner));
    for (const blob of blobs) numbers.add(this.number(blob));
    this.#held.set(owner, Uint32Array.from(numbers));
  }

  /** Bytes of the blobs that any of these holds, each blob once. */
  bytes(owners: Iterable<GenerationId>): number {
    return this.count(owners).bytes;
  }

  /** Bytes of blobs by their numbers. */
  sizeOf(numbers: Iterable<number>): number {
    let bytes = 0;
    for (const number of numbers) bytes += this.#sizes[number] ?? 0;
    return bytes;
  }

  count(owners: Iterable<GenerationId>): CountedBlobs {
    const counted = new CountedBlobs(this.#sizes, (owner) => this.#held.get(owner) ?? NOTHING);
    for (const owner of owners) counted.add(owner);
    return counted;
  }
}

const NOTHING = new Uint32Array();

/** How many of some generations hold each blob. */
export class CountedBlobs {
  /** Of all blobs that one of them holds, each once. */
  bytes = 0;
  readonly #sizes: readonly number[];
  readonly #held: (owner: GenerationId) => Uint32Array;
  readonly #counts: Uint32Array;

  constructor(sizes: readonly number[], held: (owner: GenerationId) => Uint32Array) {
    this.#sizes = sizes;
    this.#held = held;
    this.#counts = new Uint32Array(sizes.length);
  }

  add(owner: GenerationId): void {
    for (const blob of this.#held(owner)) {
      const before = this.#counts[blob] as number;
      this.#counts[blob] = before + 1;
      if (before === 0) this.bytes += this.#sizes[blob] as number;
    }
  }

  /** @param owner one that was added */
  remove(owner: GenerationId): void {
    for (const blob of this.#held(owner)) {
      const left = (this.#counts[blob] as number) - 1;
      this.#counts[blob] = left;
      if (left === 0) this.bytes -= this.#sizes[blob] as number;
    }
  }
}

/**
 * Reads the manifests under `tags`: one request for each. A list that lacks a hold makes sums too small, which
 * decides over nothing but `--max-size`.
 */
export async function readHoldings(context: ProtocolContext, tags: readonly string[]): Promise<Holdings> {
  const { store, concurrency, signal, warn } = context;
  const holdings = new Holdings();
  // A dead tag has the same bytes as its segment.
  const wanted = tags.flatMap((tag) => {
    const parsed = parseTag(tag);
    const isWanted = parsed?.kind === "segment" || parsed?.kind === "hold";
    return isWanted ? [{ tag, owner: generationId(parsed.name) }] : [];
  });
  await mapConcurrently(wanted, concurrency, async ({ tag, owner }) => {
    const stored = await store.readManifest(tag, { signal });
    if (typeof stored !== "object") return;
    try {
      holdings.add(owner, decodeManifest(stored.bytes, `${tag} of ${store.name}`).layers);
    } catch (error) {
      if (!(error instanceof NixcacheError)) throw error;
      warn(`${error.message}; its blobs are not counted`);
    }
  });
  return holdings;
}

/**
 * Which entries of an index of nixcache-oci can be committed as a generation: those whose NARs are there and whose
 * references can be had (rule 3). Entries are numbered, so that 100,000 of them are some 30 MiB.
 */
import { isStoreHash, STORE_HASH_LENGTH } from "../nar/store-path.ts";
import type { Digest } from "../oci/digest.ts";
import type { BlobReference } from "./manifests.ts";
import type { V1Item } from "./v1-index.ts";

interface Node {
  /** Places of what it refers to, without itself. */
  readonly references: readonly number[];
  readonly blob: Digest;
}

export class V1Plan {
  readonly #places = new Map<string, number>();
  readonly #hashes: string[] = [];
  /** By place; undefined for what is only referred to. */
  readonly #nodes: (Node | undefined)[] = [];
  readonly #blobs = new Map<Digest, BlobReference>();
  /** Why an entry cannot be committed, by its place. */
  readonly #out = new Map<number, string>();
  /** Of what was left out, the places whose dependents were not looked at yet. */
  #fresh: number[] = [];

  add(item: V1Item): void {
    if (!("line" in item)) {
      if (isStoreHash(item.hash)) this.#leaveOut(this.#place(item.hash), item.problem);
      return;
    }
    const { info, parts } = item.entry;
    const place = this.#place(item.line.storeHash);
    const [part] = parts;
    if (part === undefined) return;
    const references = info.references.map((reference) => this.#place(reference.slice(0, STORE_HASH_LENGTH)));
    this.#nodes[place] = { references: references.filter((other) => other !== place), blob: part.blob };
    this.#blobs.set(part.blob, { digest: part.blob, size: part.size });
  }

  /** Of all entries that can be committed, as far as is known. */
  blobs(): BlobReference[] {
    const named = new Set<Digest>();
    this.#nodes.forEach((node, place) => {
      if (node && !this.#out.has(place)) named.add(node.blob);
    });
    return [...this.#blobs.values()].filter(({ digest }) => named.has(digest));
  }

  /** Leaves out the entries with these NARs. @param problems why, by digest */
  leaveOutNars(problems: ReadonlyMap<Digest, string>): void {
    for (const [place, node] of this.#nodes.entries()) {
      const problem = node && problems.get(node.blob);
      if (problem !== undefined) this.#leaveOut(place, problem);
    }
  }

  /**
   * Leaves out what refers to something that was left out, and what refers to that, unless it can be had elsewhere.
   * What the index never had is an upstream's, as it was for nixcache-oci.
   */
  async leaveOutDependents(
    isElsewhere: (storeHashes: string[]) => Promise<ReadonlySet<string>>,
  ): Promise<void> {
    while (this.#fresh.length > 0) {
      const gone = new Set(this.#fresh);
      this.#fresh = [];
      const dependents = this.#dependents(gone);
      const wanted = new Set([...dependents.values()].flat());
      const found = await isElsewhere([...wanted].map((place) => this.#hashes[place] as string));
      for (const [place, references] of dependents) {
        const lacking = references
          .map((other) => this.#hashes[other] as string)
          .find((hash) => !found.has(hash));
        if (lacking !== undefined) this.#leaveOut(place, `it refers to ${lacking}, which is left out`);
      }
    }
  }

  /** Why an entry is left out; undefined when it is not. */
  problem(storeHash: string): string | undefined {
    const place = this.#places.get(storeHash);
    return place === undefined ? undefined : this.#out.get(place);
  }

  /** Entries that are not out and refer to one of these: the places of what they refer to. */
  #dependents(gone: ReadonlySet<number>): Map<number, number[]> {
    const dependents = new Map<number, number[]>();
    for (const [place, node] of this.#nodes.entries()) {
      if (node === undefined || this.#out.has(place)) continue;
      const references = node.references.filter((other) => gone.has(other));
      if (references.length > 0) dependents.set(place, references);
    }
    return dependents;
  }

  #leaveOut(place: number, problem: string): void {
    if (!this.#out.has(place)) this.#fresh.push(place);
    this.#out.set(place, this.#out.get(place) ?? problem);
  }

  #place(hash: string): number {
    const known = this.#places.get(hash);
    if (known !== undefined) return known;
    // Cut out of a narinfo it would keep the whole of that in memory.
    const own = Buffer.from(hash, "latin1").toString("latin1");
    this.#places.set(own, this.#hashes.length);
    this.#nodes.push(undefined);
    return this.#hashes.push(own) - 1;
  }
}

/**
 * Holds: manifests that keep uploaded blobs from being collected until their generation is committed (STORAGE-PROTOCOL,
 * "Publish" step 2). All tags of a generation share one name, which the first hold sets.
 */
import { type BlobReference, holdManifest, MAX_BLOBS, type ManifestNotes } from "../cache/manifests.ts";
import { type GenerationName, generationName, holdTag } from "../cache/tags.ts";
import { NixcacheError } from "../errors.ts";
import { randomId } from "../host.ts";
import type { Digest } from "../oci/digest.ts";
import { MEDIA_TYPE_MANIFEST } from "../oci/manifest.ts";
import { timeForName } from "./clock.ts";
import type { ProtocolContext } from "./context.ts";
import { writeEmptyConfig } from "./empty-config.ts";

/** Registries collect blobs that no manifest names, zot after an hour: hold them long before. */
const HOLD_EVERY_MS = 15 * 60_000;

/** gc removes a hold without a segment after 7 days; far from that, its blobs are held again under a new name. */
const HOLD_FOR_MS = 24 * 3_600_000;

/** After a hold that failed, until the next try: each takes the retries of the store. */
const HOLD_AGAIN_MS = 60_000;

export type GenerationLinks = Pick<ManifestNotes, "source" | "revision" | "holdsFor">;

export class Holds {
  readonly #context: ProtocolContext;
  readonly #links: GenerationLinks;
  readonly #after: GenerationName | undefined;
  #name: GenerationName | undefined;
  #namedAt = 0;
  #tags: string[] = [];
  readonly #held = new Map<Digest, BlobReference>();
  /** In the store and in no hold yet, the longest first. */
  readonly #pending = new Map<Digest, { readonly blob: BlobReference; readonly since: number }>();
  #notBefore = 0;
  #isWriting = false;
  /** Resolves when no hold is being written any more, also after one that failed. */
  #settled: Promise<unknown> = Promise.resolve();

  /** @param after a generation whose name is earlier, also within one second */
  constructor(context: ProtocolContext, links: GenerationLinks, after: GenerationName | undefined) {
    this.#context = context;
    this.#links = links;
    this.#after = after;
  }

  /** Those under the name. */
  get tags(): readonly string[] {
    return this.#tags;
  }

  get settled(): Promise<unknown> {
    return this.#settled;
  }

  has(digest: Digest): boolean {
    return this.#held.has(digest);
  }

  /** The name of the generation, made now where there is none. */
  name(): GenerationName {
    if (this.#name === undefined) {
      this.#namedAt = this.#context.host.now();
      const time = timeForName(this.#context, this.#after);
      this.#name = generationName(time, randomId(this.#context.host));
    }
    return this.#name;
  }

  /** Whether the name is a day old, so that what it holds must be held anew. */
  get isOld(): boolean {
    return this.#name !== undefined && this.#context.host.now() - this.#namedAt >= HOLD_FOR_MS;
  }

  /** Forgets the name and what it holds. */
  startAgain(): void {
    this.#name = undefined;
    this.#tags = [];
    this.#held.clear();
  }

  /** The store has lost these: whoever uploads them says so again. */
  lost(digests: readonly Digest[]): void {
    for (const digest of digests) this.#held.delete(digest);
  }

  /** As `GenerationWriter.uploaded`. */
  async add(blob: BlobReference): Promise<void> {
    if (this.#held.has(blob.digest) || this.#pending.has(blob.digest)) return;
    this.#pending.set(blob.digest, { blob, since: this.#context.host.now() });
    // One hold after the other, for their numbers.
    if (!this.#isWriting && this.#isDue()) await this.#inTurn(() => this.#writeDue());
  }

  /** As `GenerationWriter.holdAll`. */
  writeAll(): Promise<boolean> {
    return this.#inTurn(async () => {
      this.#renew();
      const blobs = this.#waiting();
      let isTaken = true;
      for (let from = 0; from < blobs.length; from += MAX_BLOBS)
        if (!(await this.#writePresent(blobs.slice(from, from + MAX_BLOBS)))) isTaken = false;
      return isTaken;
    });
  }

  /** Writes one hold. Answers what the store says is missing, when it refuses. */
  async write(blobs: readonly BlobReference[]): Promise<readonly Digest[] | undefined> {
    const { store, host, signal } = this.#context;
    await writeEmptyConfig(store, { signal });
    const tag = holdTag(this.name(), this.#tags.length);
    const notes = { ...this.#links, created: new Date(host.now()).toISOString(), nonce: randomId(host) };
    const manifest = holdManifest(blobs, notes);
    const written = await store.writeManifest(tag, MEDIA_TYPE_MANIFEST, manifest, { signal });
    if (typeof written !== "string") return written.digests;
    this.#tags.push(tag);
    for (const blob of blobs) {
      this.#held.set(blob.digest, blob);
      this.#pending.delete(blob.digest);
    }
    return undefined;
  }

  #inTurn<R>(work: () => Promise<R>): Promise<R> {
    const turn = this.#settled.then(async () => {
      this.#isWriting = true;
      try {
        return await work();
      } finally {
        this.#isWriting = false;
      }
    });
    this.#settled = turn.catch(() => {});
    return turn;
  }

  #isDue(): boolean {
    const now = this.#context.host.now();
    if (now < this.#notBefore) return false;
    const [first] = this.#pending.values();
    const isLong = first !== undefined && now - first.since >= HOLD_EVERY_MS;
    return this.#pending.size >= MAX_BLOBS || isLong || this.isOld;
  }

  async #writeDue(): Promise<void> {
    try {
      while (this.#isDue()) {
        this.#renew();
        if (!(await this.#writePresent(this.#waiting().slice(0, MAX_BLOBS)))) break;
      }
    } catch (error) {
      const isPassing =
        error instanceof NixcacheError && (error.code === "unreachable" || error.code === "protocol");
      if (!isPassing) throw error;
    }
    if (this.#isDue()) this.#notBefore = this.#context.host.now() + HOLD_AGAIN_MS;
  }

  /** Holds those of the blobs that are there. Answers whether that was all of them. */
  async #writePresent(blobs: readonly BlobReference[]): Promise<boolean> {
    let present = blobs;
    while (present.length > 0) {
      const refused = await this.write(present);
      if (refused === undefined) break;
      const gone = new Set(refused);
      const left = present.filter(({ digest }) => !gone.has(digest));
      // Refused for whatever else: they wait for the next hold.
      if (left.length === present.length) return false;
      // What is missing shows at the commit.
      for (const digest of gone) this.#pending.delete(digest);
      present = left;
    }
    return present.length === blobs.length;
  }

  /** Once the name is a day old all that it holds waits for a hold under the next one. */
  #renew(): void {
    if (!this.isOld) return;
    for (const [digest, blob] of this.#held) this.#pending.set(digest, { blob, since: this.#namedAt });
    this.startAgain();
  }

  #waiting(): BlobReference[] {
    return Array.from(this.#pending.values(), ({ blob }) => blob);
  }
}

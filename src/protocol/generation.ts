/**
 * Writing a generation: holds while the upload goes on, then the segment manifest, whose PUT is the commit
 * (STORAGE-PROTOCOL, "Publish" steps 2 to 6).
 *
 * Before that PUT nothing is visible, after it nothing can be lost. Whoever dies on the way leaves holds,
 * which keep the uploaded blobs for the next run until gc removes them.
 */
import type { EntryLine } from "../cache/entry.ts";
import {
  type BlobReference,
  holdManifest,
  MAX_BLOBS,
  type ManifestNotes,
  segmentManifest,
} from "../cache/manifests.ts";
import type { PublishRecord } from "../cache/record.ts";
import { type GenerationName, generationName, generationTime, holdTag, segmentTag } from "../cache/tags.ts";
import { bothConcurrently, mapConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import { randomId } from "../host.ts";
import type { Digest } from "../oci/digest.ts";
import { MEDIA_TYPE_MANIFEST } from "../oci/manifest.ts";
import { discardBlob } from "../oci/spool.ts";
import type { ProtocolContext } from "./context.ts";
import { writeEmptyConfig } from "./empty-config.ts";
import { makeLayer } from "./layer-blob.ts";
import { isStrict } from "./strictness.ts";
import { writeIfAbsent } from "./write-if-absent.ts";

/** Registries collect blobs that no manifest names, zot after an hour: hold them long before. */
const HOLD_EVERY_MS = 15 * 60_000;

/** gc removes a hold without a segment after 7 days; far from that, its blobs are held again under a new name. */
const HOLD_FOR_MS = 24 * 3_600_000;

/** By how much the clocks of two machines may differ (STORAGE-PROTOCOL). */
const CLOCKS_APART_MS = 3_600_000;

/** Holds that vanish, over and over, are somebody's deletion policy. */
const ATTEMPTS = 5;

/**
 * How long a manifest waits after a refusal for blobs that are there, in milliseconds. docker-registry writes
 * the same link file anew for every upload of a blob, so that for a moment another writer's blob is unknown.
 */
const REFUSED_WAIT_MS = 500;

/** The committed generation, or the blobs that the store does not have, which must be uploaded (again). */
export type CommitResult = { readonly committed: GenerationName } | { readonly missing: readonly Digest[] };

export class GenerationWriter {
  readonly #context: ProtocolContext;
  readonly #links: Pick<ManifestNotes, "source" | "revision" | "holdsFor">;
  readonly #after: GenerationName | undefined;
  /** Set by the first hold: all tags of a generation share it. */
  #name: GenerationName | undefined;
  #namedAt = 0;
  #holds: string[] = [];
  readonly #held = new Map<Digest, BlobReference>();
  readonly #pending = new Map<Digest, BlobReference>();
  #pendingSince = 0;
  #holding: Promise<unknown> = Promise.resolve();

  /**
   * @param links `holdsFor` is for holds alone: whoever commits has a name for them
   * @param after the generation that it succeeds: its name is later than that one's, also within one second
   */
  constructor(
    context: ProtocolContext,
    links: Pick<ManifestNotes, "source" | "revision" | "holdsFor">,
    after?: GenerationName,
  ) {
    this.#context = context;
    this.#links = links;
    this.#after = after;
  }

  /** Says that a blob is in the store. Holds it, with others, when enough have come or time has passed. */
  async uploaded(blob: BlobReference): Promise<void> {
    if (this.#held.has(blob.digest) || this.#pending.has(blob.digest)) return;
    const now = this.#context.host.now();
    if (this.#pending.size === 0) this.#pendingSince = now;
    this.#pending.set(blob.digest, blob);
    if (this.#pending.size < MAX_BLOBS && now - this.#pendingSince < HOLD_EVERY_MS) return;
    const batch = [...this.#pending.values()];
    this.#pending.clear();
    // One hold after the other, for their numbers. What is missing shows at the commit.
    this.#holding = this.#holding.then(() => this.#hold(batch));
    await this.#holding;
  }

  /**
   * Holds all that was uploaded and not held yet, whatever its number; and everything anew once the first hold is a
   * day old. Answers whether the store took it; it refuses where blobs are gone.
   */
  holdAll(): Promise<boolean> {
    const holding = this.#holding.then(() => this.#holdPending());
    this.#holding = holding;
    return holding;
  }

  async #holdPending(): Promise<boolean> {
    if (this.#nameIsOld()) {
      for (const [digest, blob] of this.#held) this.#pending.set(digest, blob);
      this.#startAgain();
    }
    const blobs = [...this.#pending.values()];
    this.#pending.clear();
    let taken = true;
    for (let from = 0; from < blobs.length; from += MAX_BLOBS) {
      const refused = await this.#hold(blobs.slice(from, from + MAX_BLOBS));
      if (refused !== undefined) taken = false;
    }
    return taken;
  }

  /**
   * Commits `lines`, which are read once, as one generation.
   * @param blobs every blob that the lines name, each once
   * @throws when the store fails; then nothing is committed, as far as the store said.
   */
  async commit(
    record: PublishRecord,
    lines: Iterable<Pick<EntryLine, "narinfo" | "rest">>,
    blobs: readonly BlobReference[],
  ): Promise<CommitResult> {
    const { store, spool, host, concurrency, signal } = this.#context;
    await this.#holding;
    const strict = await isStrict(this.#context);
    const index = await makeLayer(spool, { kind: "segment", record }, lines);
    try {
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        await bothConcurrently(
          concurrency,
          () => writeEmptyConfig(store, { signal }),
          () => writeIfAbsent(store, index, { signal }),
        );
        const result = await this.#tryCommit({ digest: index.digest, size: index.size }, blobs, strict);
        if (typeof result === "object") return result;
        if (result === "holds gone") this.#startAgain();
        else await host.sleep(REFUSED_WAIT_MS * (1 + host.random()), signal);
      }
    } finally {
      discardBlob(index);
    }
    throw new NixcacheError(
      "protocol",
      `${store.name} refuses this publish, although all its blobs are there`,
      {
        hint: "Look for a clean-up policy of the registry that deletes tags beginning with hold-, or try again.",
      },
    );
  }

  async #tryCommit(
    index: BlobReference,
    blobs: readonly BlobReference[],
    strict: boolean,
  ): Promise<CommitResult | "holds gone" | "refused"> {
    const { store, concurrency, signal } = this.#context;
    if (this.#nameIsOld()) this.#startAgain();

    let open = blobs.filter(({ digest }) => !this.#held.has(digest));
    const toHold = strict ? open.slice(0, Math.max(0, open.length - MAX_BLOBS)) : [index, ...open];
    for (let from = 0; from < toHold.length; from += MAX_BLOBS) {
      const refused = await this.#hold(toHold.slice(from, from + MAX_BLOBS));
      if (refused !== undefined) return this.#missing(refused, blobs);
    }
    if (!strict) {
      const missing = await this.#absent([index, ...blobs]);
      if (missing.length > 0) return { missing };
    }
    // Once more: writing the holds may have taken long, and gc trusts the time in the name.
    if (this.#nameIsOld()) return "holds gone";
    open = open.filter(({ digest }) => !this.#held.has(digest));
    const name = this.#nameNow();
    const manifest = segmentManifest(index, open, this.#notes());
    const written = await store.writeManifest(segmentTag(name), MEDIA_TYPE_MANIFEST, manifest, { signal });
    if (typeof written !== "string") return this.#missing(written.digests, blobs);
    const holds = await mapConcurrently(this.#holds, concurrency, (tag) =>
      store.statManifest(tag, { signal }),
    );
    return holds.includes(undefined) ? "holds gone" : { committed: name };
  }

  /** Writes one hold. Answers what the store says is missing, when it refuses. */
  async #hold(blobs: readonly BlobReference[]): Promise<readonly Digest[] | undefined> {
    const { store, signal } = this.#context;
    await writeEmptyConfig(store, { signal });
    const tag = holdTag(this.#nameNow(), this.#holds.length);
    const manifest = holdManifest(blobs, this.#notes());
    const written = await store.writeManifest(tag, MEDIA_TYPE_MANIFEST, manifest, { signal });
    if (typeof written !== "string") return written.digests;
    this.#holds.push(tag);
    for (const blob of blobs) this.#held.set(blob.digest, blob);
    return undefined;
  }

  /** Forgets the name: everything is held again under the next one. */
  #startAgain(): void {
    this.#name = undefined;
    this.#holds = [];
    this.#held.clear();
  }

  #nameIsOld(): boolean {
    return this.#name !== undefined && this.#context.host.now() - this.#namedAt >= HOLD_FOR_MS;
  }

  #nameNow(): GenerationName {
    if (this.#name === undefined) {
      this.#namedAt = this.#context.host.now();
      const time = laterThan(this.#after, this.#namedAt);
      this.#name = generationName(time, randomId(this.#context.host));
    }
    return this.#name;
  }

  #notes(): ManifestNotes {
    const { host } = this.#context;
    return { ...this.#links, created: new Date(host.now()).toISOString(), nonce: randomId(host) };
  }

  /** What a refusal means: blobs that are gone, of those named where the store names some. */
  async #missing(
    named: readonly Digest[],
    blobs: readonly BlobReference[],
  ): Promise<CommitResult | "refused"> {
    const suspects = blobs.filter(({ digest }) => named.includes(digest));
    const missing = await this.#absent(suspects.length > 0 ? suspects : blobs);
    for (const digest of missing) this.#held.delete(digest);
    return missing.length > 0 ? { missing } : "refused";
  }

  async #absent(blobs: readonly BlobReference[]): Promise<Digest[]> {
    const { store, concurrency, signal } = this.#context;
    const sizes = await mapConcurrently(blobs, concurrency, ({ digest }) =>
      store.statBlob(digest, { signal }),
    );
    return blobs.filter((_, i) => sizes[i] === undefined).map(({ digest }) => digest);
  }
}

/** Names tell generations apart by the second. A clock that is further ahead than clocks may be is not followed. */
function laterThan(after: GenerationName | undefined, now: number): number {
  const least = after === undefined ? now : generationTime(after) + 1000;
  return least - now <= CLOCKS_APART_MS ? Math.max(now, least) : now;
}

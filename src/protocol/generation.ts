/**
 * Writing a generation: holds while the upload goes on, then the segment manifest, whose PUT is the commit
 * (STORAGE-PROTOCOL, "Publish" steps 2 to 6).
 *
 * Before that PUT nothing is visible, after it nothing can be lost. Whoever dies on the way leaves holds,
 * which keep the uploaded blobs for the next run until gc removes them.
 */
import type { EntryLine } from "../cache/entry.ts";
import { type BlobReference, MAX_BLOBS, type ManifestNotes, segmentManifest } from "../cache/manifests.ts";
import type { PublishRecord } from "../cache/record.ts";
import { type GenerationName, segmentTag } from "../cache/tags.ts";
import { bothConcurrently, mapConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import { randomId } from "../host.ts";
import type { Digest } from "../oci/digest.ts";
import { MEDIA_TYPE_MANIFEST } from "../oci/manifest.ts";
import { discardBlob } from "../oci/spool.ts";
import type { ProtocolContext } from "./context.ts";
import { EMPTY_CONFIG_BLOB, writeEmptyConfig } from "./empty-config.ts";
import { type GenerationLinks, Holds } from "./holds.ts";
import { makeLayer } from "./layer-blob.ts";
import { checkReadBack } from "./read-back.ts";
import { generationSignature } from "./signed.ts";
import { isStrict } from "./strictness.ts";
import { writeIfAbsent } from "./write-if-absent.ts";

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
  readonly #links: GenerationLinks;
  readonly #holds: Holds;

  /**
   * @param links `holdsFor` is for holds alone: whoever commits has a name for them
   * @param after the generation that it succeeds: its name is later than that one's, also within one second
   */
  constructor(context: ProtocolContext, links: GenerationLinks, after?: GenerationName) {
    this.#context = context;
    this.#links = links;
    this.#holds = new Holds(context, links, after);
  }

  /**
   * Says that a blob is in the store. Holds it, with others, when enough have come or time has passed. A store that
   * cannot take a hold now is asked again later, at the latest by the commit: the upload itself went well.
   * @throws when the store refuses holds for good
   */
  uploaded(blob: BlobReference): Promise<void> {
    return this.#holds.add(blob);
  }

  /**
   * Holds all that was uploaded and not held yet, whatever its number; and everything anew once the first hold is a
   * day old. Answers whether the store took it; it refuses where blobs are gone.
   * @throws what the store throws; what it did not take is held by the next call
   */
  holdAll(): Promise<boolean> {
    return this.#holds.writeAll();
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
    await this.#holds.settled;
    const strict = await isStrict(this.#context);
    const index = await makeLayer(spool, { kind: "segment", record }, lines);
    try {
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        // What the registry says it has is not asked a second time.
        const isAgain = attempt > 0;
        await bothConcurrently(
          concurrency,
          async () => {
            if (isAgain) await store.writeBlob(EMPTY_CONFIG_BLOB, { signal });
            else await writeEmptyConfig(store, { signal });
          },
          async () => {
            if (isAgain) await store.writeBlob(index, { signal });
            else await writeIfAbsent(store, index, { signal });
          },
        );
        const result = await this.#tryCommit({ digest: index.digest, size: index.size }, blobs, strict);
        if (typeof result === "object") return result;
        if (result === "holds gone") this.#holds.startAgain();
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
    if (this.#holds.isOld) this.#holds.startAgain();

    let open = blobs.filter(({ digest }) => !this.#holds.has(digest));
    const toHold = strict ? open.slice(0, Math.max(0, open.length - MAX_BLOBS)) : [index, ...open];
    for (let from = 0; from < toHold.length; from += MAX_BLOBS) {
      const refused = await this.#holds.write(toHold.slice(from, from + MAX_BLOBS));
      if (refused !== undefined) return this.#missing(refused, blobs);
    }
    if (!strict) {
      const missing = await this.#absent([index, ...blobs]);
      if (missing.length > 0) return { missing };
    }
    // Once more: writing the holds may have taken long, and gc trusts the time in the name.
    if (this.#holds.isOld) return "holds gone";
    open = open.filter(({ digest }) => !this.#holds.has(digest));
    const name = this.#holds.name();
    const signatures = generationSignature(this.#context.trust ?? {}, name, index.digest);
    const manifest = segmentManifest({ ...index, signatures }, open, this.#notes());
    const written = await store.writeManifest(segmentTag(name), MEDIA_TYPE_MANIFEST, manifest, { signal });
    if (typeof written !== "string") return this.#missing(written.digests, blobs);
    await checkReadBack(this.#context, { name, manifest: written, blobs: [index, ...blobs] });
    const holds = await mapConcurrently(this.#holds.tags, concurrency, (tag) =>
      store.statManifest(tag, { signal }),
    );
    return holds.includes(undefined) ? "holds gone" : { committed: name };
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
    this.#holds.lost(missing);
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

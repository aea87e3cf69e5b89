/**
 * Blobs from one store to another, each once: what is there stays, what the registry can mount it mounts, the rest is
 * transferred. A file of a layout is handed over as it is, what a registry has goes through the spool: a registry
 * wants digest and length before the first byte, and a try that fails reads its source again.
 */
import type { BlobReference } from "../cache/manifests.ts";
import { Semaphore } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import { discardBlob } from "../oci/spool.ts";
import type { BlobSource, Store } from "../oci/store.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { fetchBlob } from "../protocol/fetch-blob.ts";
import type { GenerationWriter } from "../protocol/generation.ts";
import { fromSource, SourceDamaged } from "./source.ts";

/** Each may have a part of 1 GiB in a temporary file. */
const TRANSFERS_AT_ONCE = 4;

/** A registry that refuses so many mounts in a row does none. */
const MAX_MOUNTS_REFUSED = 3;

export interface CopiedBlobs {
  /** Numbers of blobs. */
  sent: number;
  mounted: number;
  present: number;
  bytesSent: number;
  bytesMounted: number;
}

export class BlobCopier {
  readonly counts: CopiedBlobs = { sent: 0, mounted: 0, present: 0, bytesSent: 0, bytesMounted: 0 };
  readonly #source: Store;
  readonly #context: ProtocolContext;
  readonly #keeper: GenerationWriter;
  readonly #changed: () => void;
  readonly #requests: Semaphore;
  readonly #transfers = new Semaphore(TRANSFERS_AT_ONCE);
  readonly #there = new Set<Digest>();
  readonly #underWay = new Map<Digest, Promise<void>>();
  #mountsRefused = 0;

  /**
   * @param context of the destination
   * @param keeper is told of what was brought there, and holds it
   * @param changed called whenever `counts` have changed
   */
  constructor(source: Store, context: ProtocolContext, keeper: GenerationWriter, changed: () => void) {
    this.#source = source;
    this.#context = context;
    this.#keeper = keeper;
    this.#changed = changed;
    this.#requests = new Semaphore(context.concurrency);
  }

  /**
   * Brings a blob to the destination, unless this did so before.
   * @param at its bytes, where they were fetched already; the caller keeps them
   * @throws SourceDamaged when the source has no such blob, or other bytes
   */
  async copy(blob: BlobReference, at?: BlobSource): Promise<void> {
    const { digest } = blob;
    if (this.#there.has(digest)) return;
    let copying = this.#underWay.get(digest);
    if (copying === undefined) {
      copying = this.#requests
        .run(() => this.#copy(blob, at))
        .then(() => void this.#there.add(digest))
        .finally(() => this.#underWay.delete(digest));
      this.#underWay.set(digest, copying);
    }
    await copying;
  }

  /** The destination says that it does not have these after all. */
  forget(digests: readonly Digest[]): void {
    for (const digest of digests) this.#there.delete(digest);
  }

  async #copy(blob: BlobReference, at: BlobSource | undefined): Promise<void> {
    const { store, signal } = this.#context;
    const { counts } = this;
    if ((await store.statBlob(blob.digest, { signal })) === blob.size) counts.present++;
    else {
      if (await this.#mount(blob.digest)) {
        counts.mounted++;
        counts.bytesMounted += blob.size;
      } else {
        await this.#transfers.run(() => this.#transfer(blob, at));
        counts.sent++;
        counts.bytesSent += blob.size;
      }
      await this.#keeper.uploaded(blob);
    }
    this.#changed();
  }

  async #mount(digest: Digest): Promise<boolean> {
    const { store, signal } = this.#context;
    if (store.mountBlob === undefined || this.#mountsRefused >= MAX_MOUNTS_REFUSED) return false;
    const mounted = await store.mountBlob(digest, { signal });
    this.#mountsRefused = mounted ? 0 : this.#mountsRefused + 1;
    return mounted;
  }

  async #transfer({ digest, size }: BlobReference, at: BlobSource | undefined): Promise<void> {
    const { store, spool, signal } = this.#context;
    const source = this.#source;
    if (at !== undefined) return store.writeBlob(at, { signal });
    const absent = () => new SourceDamaged(`${source.name}: the blob ${digest} is absent`);
    if (source.blobFile !== undefined) {
      const found = await fromSource(() => source.statBlob(digest, { signal }));
      if (found === undefined) throw absent();
      const content = { file: source.blobFile(digest), foreign: true };
      await store.writeBlob({ digest, size, content }, { signal }).catch(async (error) => {
        // It may be either one's damage: the file is read while it is written there.
        if (error instanceof NixcacheError && error.code === "corrupt") await this.#checkSource(digest);
        throw error;
      });
      return;
    }
    const blob = await fromSource(() => fetchBlob(source, spool, { digest, size }, "blob", { signal }));
    if (blob === undefined) throw absent();
    try {
      await store.writeBlob(blob, { signal });
    } finally {
      discardBlob(blob);
    }
  }

  /** @throws SourceDamaged unless the source has every byte of the blob */
  async #checkSource(digest: Digest): Promise<void> {
    const { name } = this.#source;
    const { signal } = this.#context;
    const found = await fromSource(async () => {
      const hasher = new Bun.CryptoHasher("sha256");
      for await (const chunk of (await this.#source.readBlob(digest, { signal })) ?? []) hasher.update(chunk);
      return hasher.digest("hex");
    });
    if (`sha256:${found}` === digest) return;
    throw new SourceDamaged(`${name}: the blob ${digest} has bytes with the SHA-256 ${found}`);
  }
}

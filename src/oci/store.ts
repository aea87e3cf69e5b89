/**
 * The store: blobs, manifests and tags of one cache reference.
 *
 * Two implementations, `registry.ts` (HTTP) and `layout.ts` (directory); one contract suite runs on both.
 * Rule 1 shapes every signature: a method answers `undefined` for absent only when the other side said so
 * (404, or a file that is not there); everything else throws a NixcacheError.
 * https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md
 */
import { NixcacheError } from "../errors.ts";
import type { Digest } from "./digest.ts";

/** Bytes to upload, addressed by their digest. They are read once for each try. */
export interface BlobSource {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /**
   * The content: bytes in memory, or the path of a complete file on disk that the caller removes afterwards.
   * A layout moves the file in (link or rename) when it is on the same file system, unless it is somebody else's
   * (`foreign`), who keeps it.
   */
  readonly content: Uint8Array | { readonly file: string; readonly foreign?: boolean };
}

/** A range of a blob, in bytes. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** @throws `internal` for a range that no blob can have. */
export function checkRange(range: ByteRange | undefined): void {
  if (range === undefined) return;
  const { offset, length } = range;
  if (Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0) return;
  throw new NixcacheError(
    "internal",
    `read blob: got the range ${offset}+${length}, expected whole numbers from 0 on`,
  );
}

export interface StoredManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  /** Already checked against `digest`, and against the bound on manifests of 4 MiB. */
  readonly bytes: Uint8Array;
}

/** A manifest was refused because blobs that it names are not in the store. */
export interface BlobsMissing {
  readonly blobsMissing: true;
  /** The digests that the store named, empty when it named none. */
  readonly digests: readonly Digest[];
  /** Set where the store gave another reason or none, and was then asked for each blob. */
  readonly inferred?: true;
}

/** A deletion that the store does not allow. */
export interface Refusal {
  /** Why, as the end of a sentence that begins "… could not be deleted: ". */
  readonly refused: string;
  /** Whether every other deletion would be refused as well. */
  readonly everything: boolean;
}

/** What a collection has removed. */
export interface CollectedBlobs {
  readonly blobs: number;
  readonly bytes: number;
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface Store {
  /** For messages: `ghcr.io/owner/repo/nix-cache` or `/path/to/layout`. */
  readonly name: string;
  /**
   * Whether a manifest that names a missing blob is refused. `unknown` asks for a probe (R6 of the storage
   * protocol); a layout checks by itself and is always strict.
   */
  readonly strictness: "strict" | "unknown";

  /**
   * By how much the store's clock is ahead of ours, in ms, by what it has answered so far; undefined as long as no answer
   * told. Default: it has no clock but ours.
   */
  readonly clockAheadMs?: (() => number | undefined) | undefined;

  /** The size of a blob in bytes, or undefined when it is absent. Transfers no body. */
  statBlob(digest: Digest, options?: CallOptions): Promise<number | undefined>;
  /**
   * A blob's bytes, or those of `range`; undefined when the blob is absent. The stream errors when the
   * transfer breaks or has another length than asked for. It does not check the digest: a range has none,
   * and the reader of a whole blob hashes anyway.
   * @param options.size bytes of the whole blob, where the reader knows; for a cache in front of the store
   * @param options.isPack whether the blob holds many small files, of which the range is one; for such a cache, too
   * @param options.attempts fewer tries than usual
   */
  readBlob(
    digest: Digest,
    options?: CallOptions & {
      range?: ByteRange | undefined;
      size?: number | undefined;
      isPack?: boolean | undefined;
      attempts?: number | undefined;
    },
  ): Promise<ReadableStream<Uint8Array> | undefined>;
  /**
   * Whether a range costs as much as the whole blob, as far as it was seen. Where ranges are as good as nothing, whoever
   * wants all of a blob asks once. Default: it does not.
   */
  readonly ignoresRange?: (() => boolean) | undefined;
  /** Stores a blob. Safe to repeat, and for many writers of the same blob at once. */
  writeBlob(source: BlobSource, options?: CallOptions): Promise<void>;
  /**
   * Finds out whether anything can be written, and leaves nothing behind: to ask before hours of work.
   * @throws `denied`, `filesystem` or `layout` when nothing can be; anything else when that is not known.
   */
  readonly checkWrite?: ((options?: CallOptions) => Promise<void>) | undefined;
  /** The file that a blob is, where the store has files on this machine. Whether it is there is not said. */
  readonly blobFile?: ((digest: Digest) => string) | undefined;
  /**
   * Takes a blob over from the repository that the store was opened to mount from, without a transfer. False when the
   * registry does not do that, for whatever reason.
   */
  readonly mountBlob?: ((digest: Digest, options?: CallOptions) => Promise<boolean>) | undefined;

  /**
   * The manifest under a tag or digest; undefined when absent; `"unchanged"` when its digest is
   * `ifNot` (a conditional request where the store has them).
   */
  readManifest(
    reference: string,
    options?: CallOptions & { ifNot?: Digest | undefined },
  ): Promise<StoredManifest | "unchanged" | undefined>;
  /** The digest under a tag or digest, asked for by its exact name (R7); undefined when absent. */
  statManifest(reference: string, options?: CallOptions): Promise<Digest | undefined>;
  /**
   * Puts a manifest under a tag (or its own digest). Replaces what the tag pointed to. The digest is that of
   * what was stored: a registry that refuses custom artifact types gets an image config instead (see
   * `withoutArtifactType`), which changes the bytes.
   * @param options.faultAttempts fewer tries than usual where the store fails of itself, for what nothing depends on
   */
  writeManifest(
    reference: string,
    mediaType: string,
    bytes: Uint8Array,
    options?: CallOptions & { faultAttempts?: number | undefined },
  ): Promise<Digest | BlobsMissing>;
  /**
   * Deletes the manifest and with it every tag on it. True when it was there. A blob that no manifest names any
   * more goes when the registry collects it.
   */
  deleteManifest(
    digest: Digest,
    options?: CallOptions & { faultAttempts?: number | undefined },
  ): Promise<boolean | Refusal>;
  /** Manifests without a tag, such as earlier roots, where the store can tell. */
  readonly listUntagged?: ((options?: CallOptions) => Promise<Digest[]>) | undefined;
  /** Removes what no manifest names, where the store does not do that by itself. */
  readonly collectBlobs?: ((options?: CallOptions) => Promise<CollectedBlobs>) | undefined;
  /** Every tag, in no order; empty for a cache that does not exist yet. The list may be stale. */
  listTags(options?: CallOptions): Promise<string[]>;
}

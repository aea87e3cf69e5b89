/**
 * The manifests that commit and hold: segment, hold, and the root, as OCI image manifests.
 * https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md#guidelines-for-artifact-usage
 *
 * A segment's first layer is its index layer, the others are the blobs that its entries name. A hold has
 * blobs alone. The root's layers are its stack of index layers, the lowest first.
 */
import { NixcacheError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import {
  type Descriptor,
  EMPTY_CONFIG,
  encodeManifest,
  type ImageManifest,
  MEDIA_TYPE_LAYER,
  MEDIA_TYPE_MANIFEST,
} from "../oci/manifest.ts";
import { allParts, type EntryLine, filesOf } from "./entry.ts";
import { type GenerationName, parseGenerationName } from "./tags.ts";

export const SEGMENT_TYPE = "application/vnd.nixcache.segment.v1";
export const HOLD_TYPE = "application/vnd.nixcache.hold.v1";
export const ROOT_TYPE = "application/vnd.nixcache.root.v1";

/** Blobs one manifest names beside its index layer. ECR takes 500 layers; this leaves room. */
export const MAX_BLOBS = 399;

/** A blob by digest and size, as entries and manifests name it. */
export interface BlobReference {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

/** An index layer as a manifest names it. */
export interface SignedReference extends BlobReference {
  /** As the annotation SIGNATURES has them. */
  readonly signatures?: string | undefined;
}

/** Signatures of an index layer, each as `name:base64`, with a blank between them. */
const SIGNATURES = "io.nixcache.signature";

/** An index layer with its signatures, out of a manifest. */
export function signedReference({ digest, size, annotations }: Descriptor): SignedReference {
  return { digest, size, signatures: annotations?.[SIGNATURES] };
}

/** Every blob that the lines name, for NARs and what stands beside them, each once. */
export function blobsOf(lines: readonly EntryLine[]): BlobReference[] {
  const blobs = new Map<Digest, BlobReference>();
  for (const line of lines) {
    const parts = allParts(filesOf(line.rest, line.storeHash));
    for (const { blob, size } of parts) blobs.set(blob, { digest: blob, size });
  }
  return [...blobs.values()];
}

/** Annotations that tools show. `nonce` makes the digest unique: deleting it must take no other tag along. */
export interface ManifestNotes {
  readonly created: string;
  readonly nonce: string;
  /** URL of the source repository: GHCR links the package to it. */
  readonly source?: string | undefined;
  readonly revision?: string | undefined;
  /** Of a hold: the generation whose blobs it names, where that is not the one with its own name. */
  readonly holdsFor?: GenerationName | undefined;
}

/** The annotation of `holdsFor`. */
const HOLDS_FOR = "io.nixcache.holds-for";

/** @param index with its signature, where it has one */
export function segmentManifest(
  index: SignedReference,
  blobs: readonly BlobReference[],
  notes: ManifestNotes,
): Uint8Array {
  return encode(SEGMENT_TYPE, [index, ...blobs], notes);
}

export function holdManifest(blobs: readonly BlobReference[], notes: ManifestNotes): Uint8Array {
  return encode(HOLD_TYPE, blobs, notes);
}

/** The generation that a hold under another name says that it is of. */
export function holdsFor({ annotations }: ImageManifest): GenerationName | undefined {
  return parseGenerationName(annotations?.[HOLDS_FOR]);
}

export function rootManifest(layers: readonly SignedReference[], notes: ManifestNotes): Uint8Array {
  return encode(ROOT_TYPE, layers, notes);
}

/** The index layer of a segment. @throws `corrupt`, naming `where`, when the manifest has no layers. */
export function indexLayerOf(manifest: ImageManifest, where: string): SignedReference {
  const [index] = manifest.layers;
  if (index === undefined) {
    throw new NixcacheError("corrupt", `${where}: the segment has no layers, expected an index layer`);
  }
  return signedReference(index);
}

function encode(artifactType: string, blobs: readonly SignedReference[], notes: ManifestNotes): Uint8Array {
  const layers: Descriptor[] = blobs.map(({ digest, size, signatures }) => ({
    mediaType: MEDIA_TYPE_LAYER,
    digest,
    size,
    ...(signatures !== undefined && { annotations: { [SIGNATURES]: signatures } }),
  }));
  const annotations: Record<string, string> = {
    "org.opencontainers.image.created": notes.created,
    "io.nixcache.nonce": notes.nonce,
  };
  if (notes.source !== undefined) annotations["org.opencontainers.image.source"] = notes.source;
  if (notes.revision !== undefined) annotations["org.opencontainers.image.revision"] = notes.revision;
  if (notes.holdsFor !== undefined) annotations[HOLDS_FOR] = notes.holdsFor;
  return encodeManifest({
    schemaVersion: 2,
    mediaType: MEDIA_TYPE_MANIFEST,
    artifactType,
    config: EMPTY_CONFIG,
    layers,
    annotations,
  });
}

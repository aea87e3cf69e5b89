/** A generation as its cache has it: its manifests byte for byte, and every blob that they and its entries name. */
import { allParts, filesOf } from "../cache/entry.ts";
import { type BlobReference, indexLayerOf } from "../cache/manifests.ts";
import { type GenerationName, holdTag, segmentTag } from "../cache/tags.ts";
import { NixcacheError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import { decodeManifest, type ImageManifest } from "../oci/manifest.ts";
import { discardBlob, type Spool } from "../oci/spool.ts";
import type { BlobSource, CallOptions, Store, StoredManifest } from "../oci/store.ts";
import { fetchLayer, readLayer } from "../protocol/layer-blob.ts";

export interface TaggedManifest {
  readonly tag: string;
  readonly stored: StoredManifest;
  readonly manifest: ImageManifest;
  /** What it names, its config among them. */
  readonly blobs: readonly BlobReference[];
}

export interface SourceGeneration {
  readonly name: GenerationName;
  readonly segment: TaggedManifest;
  readonly holds: readonly TaggedManifest[];
  /** Blobs that the entries name and none of its manifests does. */
  readonly unheld: readonly BlobReference[];
  /** Its index layer, fetched; the caller discards it. */
  readonly index: BlobSource;
}

/**
 * Undefined when there is no such generation.
 * @param holds numbers of its holds that were listed. A list may lack some, so what the entries name decides.
 * @throws `corrupt` when it cannot be read
 */
export async function readGeneration(
  source: Store,
  spool: Spool,
  name: GenerationName,
  holds: readonly number[],
  options: CallOptions,
): Promise<SourceGeneration | undefined> {
  const tag = segmentTag(name);
  const where = `${tag} of ${source.name}`;
  const segment = await readTagged(source, tag, options);
  if (segment === undefined) return undefined;
  const layer = indexLayerOf(segment.manifest, where);
  const index = await fetchLayer(source, spool, layer, options);
  if (index === undefined) throw damaged(`${where}: its index layer ${layer.digest} is absent`);
  try {
    const open = new Map<Digest, BlobReference>();
    const header = await readLayer(index, where, ({ rest }) => {
      for (const { blob, size } of allParts(filesOf(rest, where))) open.set(blob, { digest: blob, size });
    });
    if (header.kind !== "segment") throw damaged(`${where}: its first layer is a root's`);
    for (const { digest } of segment.blobs) open.delete(digest);
    const found = await readHolds(source, name, holds, open, options);
    return { name, segment, holds: found, unheld: [...open.values()], index };
  } catch (error) {
    discardBlob(index);
    throw error;
  }
}

/** @param open what the entries name beside the segment; what is held is taken out */
async function readHolds(
  source: Store,
  name: GenerationName,
  listed: readonly number[],
  open: Map<Digest, BlobReference>,
  options: CallOptions,
): Promise<TaggedManifest[]> {
  const found: TaggedManifest[] = [];
  const read = async (number: number): Promise<boolean> => {
    const hold = await readTagged(source, holdTag(name, number), options);
    if (hold === undefined) return false;
    found.push(hold);
    for (const { digest } of hold.blobs) open.delete(digest);
    return true;
  };
  for (const number of listed.toSorted((a, b) => a - b)) await read(number);
  // Holds are numbered from 0 on without a gap: those that the list lacks are asked for.
  for (let number = 0; open.size > 0; number++) {
    if (!listed.includes(number) && !(await read(number))) break;
  }
  return found;
}

async function readTagged(
  source: Store,
  tag: string,
  options: CallOptions,
): Promise<TaggedManifest | undefined> {
  const stored = await source.readManifest(tag, options);
  if (typeof stored !== "object") return undefined;
  const manifest = decodeManifest(stored.bytes, `${tag} of ${source.name}`);
  const blobs = [manifest.config, ...manifest.layers].map(({ digest, size }) => ({ digest, size }));
  return { tag, stored, manifest, blobs };
}

export function damaged(message: string): NixcacheError {
  return new NixcacheError("corrupt", message, {
    hint: "Run nixcache verify --repair on the cache that is copied.",
  });
}

/** A generation as its cache has it: its manifests byte for byte, and every blob that they and its entries name. */
import { allParts, filesOf } from "../cache/entry.ts";
import { type BlobReference, indexLayerOf } from "../cache/manifests.ts";
import { type GenerationName, holdTag, inFormOf } from "../cache/tags.ts";
import { NixcacheError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import { decodeManifest, type ImageManifest } from "../oci/manifest.ts";
import { discardBlob } from "../oci/spool.ts";
import type { BlobSource, CallOptions, Store, StoredManifest } from "../oci/store.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { fetchLayer, readLayer } from "../protocol/layer-blob.ts";
import { countsGeneration } from "../protocol/signed.ts";
import { readTag } from "../protocol/tagged.ts";

export interface TaggedManifest {
  readonly tag: string;
  readonly stored: StoredManifest;
  readonly manifest: ImageManifest;
  /** What it names, its config among them. */
  readonly blobs: readonly BlobReference[];
}

/** Tags of the holds of one generation, by their numbers. */
export type HoldTags = ReadonlyMap<number, string>;

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
 * Undefined when there is no such generation, "unsigned" where it does not count for this reader.
 * @param listed its tags, as they were listed. A list may lack holds, so what the entries name decides.
 * @throws `corrupt` when it cannot be read
 */
export async function readGeneration(
  source: Store,
  { spool, trust = {}, signal }: Pick<ProtocolContext, "spool" | "trust" | "signal">,
  name: GenerationName,
  listed: { readonly segment: string; readonly holds: HoldTags },
): Promise<SourceGeneration | "unsigned" | undefined> {
  const options = { signal };
  const segment = await readTagged(source, listed.segment, options);
  if (segment === undefined) return undefined;
  const where = `${segment.tag} of ${source.name}`;
  const layer = indexLayerOf(segment.manifest, where);
  if (!countsGeneration(trust, name, layer)) return "unsigned";
  const index = await fetchLayer(source, spool, layer, options);
  if (index === undefined) throw new SourceDamaged(`${where}: its index layer ${layer.digest} is absent`);
  try {
    const open = new Map<Digest, BlobReference>();
    const header = await readLayer(index, where, ({ rest }) => {
      for (const { blob, size } of allParts(filesOf(rest, where))) open.set(blob, { digest: blob, size });
    });
    if (header.kind !== "segment") throw new SourceDamaged(`${where}: its first layer is a root's`);
    for (const { digest } of segment.blobs) open.delete(digest);
    const tagOf = (number: number) => inFormOf(segment.tag, holdTag(name, number));
    const found = await readHolds(source, listed.holds, tagOf, open, options);
    return { name, segment, holds: found, unheld: [...open.values()], index };
  } catch (error) {
    discardBlob(index);
    throw error;
  }
}

/**
 * @param tagOf a hold that was not listed
 * @param open what the entries name beside the segment; what is held is taken out
 */
async function readHolds(
  source: Store,
  listed: HoldTags,
  tagOf: (number: number) => string,
  open: Map<Digest, BlobReference>,
  options: CallOptions,
): Promise<TaggedManifest[]> {
  const found: TaggedManifest[] = [];
  const read = async (number: number): Promise<boolean> => {
    const hold = await readTagged(source, listed.get(number) ?? tagOf(number), options);
    if (hold === undefined) return false;
    found.push(hold);
    for (const { digest } of hold.blobs) open.delete(digest);
    return true;
  };
  for (const number of [...listed.keys()].sort((a, b) => a - b)) await read(number);
  // Holds are numbered from 0 on without a gap: those that the list lacks are asked for.
  for (let number = 0; open.size > 0; number++) {
    if (!listed.has(number) && !(await read(number))) break;
  }
  return found;
}

async function readTagged(
  source: Store,
  listed: string,
  options: CallOptions,
): Promise<TaggedManifest | undefined> {
  const found = await readTag(source, listed, options);
  if (found === undefined) return undefined;
  const { tag, stored } = found;
  const manifest = decodeManifest(stored.bytes, `${tag} of ${source.name}`);
  const blobs = [manifest.config, ...manifest.layers].map(({ digest, size }) => ({ digest, size }));
  return { tag, stored, manifest, blobs };
}

/** What is copied cannot be had as it should be: no fault of the destination's. */
export class SourceDamaged extends NixcacheError {
  constructor(message: string, cause?: unknown) {
    super("corrupt", message, { hint: "Run nixcache verify --repair on the cache that is copied.", cause });
  }
}

/** Runs what reads the source and nothing else. @throws SourceDamaged for what is corrupt there */
export async function fromSource<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof NixcacheError) || error.code !== "corrupt") throw error;
    throw error instanceof SourceDamaged ? error : new SourceDamaged(error.message, error);
  }
}

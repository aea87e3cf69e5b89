/**
 * One generation for itself: the record and the lines of its own segment, whatever the root says. Root layers merge
 * the lines of generations, so which paths one of them holds is only here; also of one that has ended, until it is
 * deleted.
 */
import type { EntryLine } from "../cache/entry.ts";
import type { BrokenLine } from "../cache/index-layer.ts";
import { type BlobReference, indexLayerOf, type SignedReference } from "../cache/manifests.ts";
import type { PublishRecord } from "../cache/record.ts";
import { type GenerationName, segmentTag } from "../cache/tags.ts";
import { NixcacheError } from "../errors.ts";
import { decodeManifest } from "../oci/manifest.ts";
import { discardBlob } from "../oci/spool.ts";
import type { Store } from "../oci/store.ts";
import type { ProtocolContext } from "./context.ts";
import { fetchLayer, readLayer } from "./layer-blob.ts";
import { Malformed, malformed, sense } from "./malformed.ts";
import { countsGeneration } from "./signed.ts";
import { readTag } from "./tagged.ts";

export interface SegmentHeader {
  readonly record: PublishRecord;
  /** The segment's index layer. */
  readonly index: BlobReference;
}

export interface SegmentOptions {
  /** In the form that was listed, where it was. */
  readonly tag?: string;
  /** Called for each line that is no entry. Default: they are passed over. */
  readonly broken?: (error: BrokenLine) => void;
}

/**
 * Calls `entry` for each line, which came with its digest and was checked.
 * @returns undefined when there is no such segment (404)
 * @throws UnsignedGeneration where it does not count for this reader; Malformed for what is no segment,
 *   `corrupt` for one that the store has damaged or lost a part of; perhaps after some of its lines
 */
export async function readSegment(
  { store, spool, signal, trust }: Pick<ProtocolContext, "store" | "spool" | "signal" | "trust">,
  name: GenerationName,
  entry: (line: EntryLine, index: BlobReference) => void,
  { tag = segmentTag(name), broken }: SegmentOptions = {},
): Promise<SegmentHeader | undefined> {
  const segment = await readTag(store, tag, { signal });
  if (segment === undefined) return undefined;
  const where = `${segment.tag} of ${store.name}`;
  const index = indexOfSegment({ trust }, name, segment.stored.bytes, where);
  if (index === undefined) throw new UnsignedGeneration(store, name);
  const blob = await fetchLayer(store, spool, index, { signal });
  if (blob === undefined)
    throw new NixcacheError("corrupt", `${where}: its index layer ${index.digest} is absent`);
  try {
    const header = await readLayer(blob, where, (line) => entry(line, index), broken);
    if (header.kind === "segment") return { record: header.record, index };
    throw new NixcacheError("corrupt", `${where}: its first layer is a root's`);
  } catch (error) {
    throw malformed(error);
  } finally {
    discardBlob(blob);
  }
}

/**
 * The index layer that a segment's manifest names; undefined when the segment does not count for this reader.
 * @throws Malformed for what is no segment, where everything counts
 */
export function indexOfSegment(
  { trust = {} }: Pick<ProtocolContext, "trust">,
  name: GenerationName,
  manifest: Uint8Array,
  where: string,
): SignedReference | undefined {
  try {
    const index = sense(() => indexLayerOf(decodeManifest(manifest, where), where));
    return countsGeneration(trust, name, index) ? index : undefined;
  } catch (error) {
    // It says nothing, so it is not signed either.
    if (error instanceof Malformed && trust.keys !== undefined) return undefined;
    throw error;
  }
}

/** None of the keys that the reader was given has signed it. */
export class UnsignedGeneration extends NixcacheError {
  constructor({ name }: Pick<Store, "name">, generation: GenerationName) {
    super("key", `${segmentTag(generation)} of ${name} is signed by none of the keys that were given`, {
      hint: "Give the key that has signed it, or --allow-unsigned-generations if you trust who wrote it.",
    });
  }
}

/** For whoever needs a segment that is not there. */
export function generationGone({ name }: Pick<Store, "name">, generation: GenerationName): NixcacheError {
  return new NixcacheError("absent", `${segmentTag(generation)} of ${name} is not there any more`, {
    hint: "It has ended and was deleted; nixcache history lists what there is.",
  });
}

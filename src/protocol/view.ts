/**
 * Choosing the layers of the view: the reader's step 2 and 3, inside one transaction on the local index.
 */
import type { Generation } from "../cache/index-layer.ts";
import type { V1State } from "../cache/index-reader.ts";
import type { IndexUpdate } from "../cache/index-update.ts";
import type { BlobReference, SignedReference } from "../cache/manifests.ts";
import { adoptedTag, type GenerationName, parseTag } from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import type { ProtocolContext } from "./context.ts";
import { LayerLoader, type LoadedLayer, type SegmentLayer } from "./layer-loader.ts";
import { Liveness } from "./liveness.ts";
import { Malformed } from "./malformed.ts";
import { indexOfSegment } from "./segment.ts";
import { countsRootLayer } from "./signed.ts";
import { readTag } from "./tagged.ts";

export interface Listing {
  /** The tag list, which may lack what was pushed lately (R7). */
  readonly tags: readonly string[];
  /** The root's layers, the lowest first. */
  readonly stack: readonly SignedReference[];
  /** Generations to leave out as if they were dead. */
  readonly without: ReadonlySet<GenerationName>;
  /** What is under the tag of nixcache-oci. */
  readonly v1: V1State | undefined;
}

export interface Rebuilt {
  readonly changed: boolean;
  /** What is known now of the index of nixcache-oci. */
  readonly v1: V1State | undefined;
}

/** Unsigned generations that are remembered: of more each refresh asks again. */
const MAX_UNSIGNED = 10_000;

/**
 * Makes the view the union of all live segments that count for this reader, and of the index of nixcache-oci while none
 * has adopted it.
 */
export async function rebuildView(
  context: ProtocolContext,
  change: IndexUpdate,
  { tags, stack, without, v1 }: Listing,
): Promise<Rebuilt> {
  const liveness = new Liveness(context, tags, without);
  await liveness.ask(context.database.view.generations().map(({ name }) => name));
  change.addDead(liveness.dead, context.host.now());

  const layers = new LayerLoader(context, change);
  const counting = await countingLayers(context, stack, layers, liveness);
  const covered = new Set(counting.flatMap(({ generations }) => generations.map(({ name }) => name)));
  const uncovered = liveness.live().filter((name) => !covered.has(name));
  const unsigned = new Set(context.database.view.unsigned());
  const signed = uncovered.filter((name) => !unsigned.has(name));
  const segments = await loadSegments(context, layers, signed, { liveness, unsigned }, counting.length > 0);

  counting.forEach(({ id, signatures }, position) => {
    change.setPosition(id, position, signatures);
  });
  for (const [id, generations] of groupByLayer(segments)) {
    change.setPosition(id, null);
    change.setGenerations(id, generations);
  }
  const generations = [
    ...counting.flatMap((layer) => layer.generations),
    ...segments.flatMap((segment) => segment?.generation ?? []),
  ];
  const foreign = v1 && (await loadV1(context, layers, v1, tags, generations));
  const changed = layers.keepOnly([...counting, ...segments, foreign].flatMap((layer) => layer?.id ?? []));
  const passedOver = [...unsigned].filter((name) => liveness.isAlive(name));
  if (passedOver.length > 0) context.warn(describeUnsigned(passedOver));
  change.setUnsigned(passedOver.slice(0, MAX_UNSIGNED));
  return { changed, v1: foreign?.v1 };
}

function describeUnsigned(names: readonly GenerationName[]): string {
  const [first] = names;
  const what =
    names.length === 1 ? `seg-${first} is` : `${names.length} generations, such as seg-${first}, are`;
  return `${what} passed over, as none of the given keys has signed ${names.length === 1 ? "it" : "them"}; nixcache sign signs what is yours, --allow-unsigned-generations takes all`;
}

/** Into the view, unless a generation has adopted it. */
async function loadV1(
  context: ProtocolContext,
  layers: LayerLoader,
  v1: V1State,
  tags: readonly string[],
  generations: readonly Generation[],
): Promise<{ id?: number; v1: V1State }> {
  const { manifest, index } = v1;
  if (index === undefined) return { v1 };
  const isAdopted =
    generations.some(({ record }) => record.adopted === index.digest) ||
    (await wasAdopted(context, index, tags));
  return isAdopted ? { v1: { manifest, index } } : layers.loadV1(v1, index);
}

/** Whether the generation that adopted an index is over. */
async function wasAdopted(
  { store, signal }: ProtocolContext,
  { digest }: BlobReference,
  tags: readonly string[],
): Promise<boolean> {
  const tag = adoptedTag(digest);
  if (tags.includes(tag)) return true;
  const isOurs = tags.some((other) => parseTag(other) !== undefined);
  return isOurs && (await store.statManifest(tag, { signal })) !== undefined;
}

/** R5: a layer counts while everything that it and the layers below it cover is alive. */
async function countingLayers(
  context: ProtocolContext,
  stack: readonly SignedReference[],
  layers: LayerLoader,
  liveness: Liveness,
): Promise<(LoadedLayer & Pick<SignedReference, "signatures">)[]> {
  const counting: (LoadedLayer & Pick<SignedReference, "signatures">)[] = [];
  for (const reference of stack) {
    // What it covers is read from the generations themselves, of which each one is signed.
    if (!countsRootLayer(context.trust ?? {}, reference)) break;
    // Not all that it has can be put into another one: it is made anew from the segments.
    if (context.database.malformed.layers.has(reference.digest)) break;
    const layer = await layers.load(reference).catch((error) => {
      if (!(error instanceof NixcacheError && error.code === "corrupt")) throw error;
      context.warn(`${error.message}; reading the segments instead`);
      return undefined;
    });
    if (layer?.kind !== "root") break;
    const names = layer.generations.map(({ name }) => name);
    await liveness.ask(names);
    if (!names.every((name) => liveness.isAlive(name))) break;
    counting.push({ ...layer, signatures: reference.signatures });
  }
  return counting;
}

/**
 * The layers of segments; undefined for those that are gone, or malformed.
 * @param mayPass whether something else was read: a cache of which nothing can be read is not an empty one (rule 1)
 */
async function loadSegments(
  context: ProtocolContext,
  layers: LayerLoader,
  names: readonly GenerationName[],
  about: { readonly liveness: Liveness; readonly unsigned: Set<GenerationName> },
  mayPass: boolean,
): Promise<(SegmentLayer | undefined)[]> {
  const known = context.database.malformed.generations;
  const found = new Map<GenerationName, Malformed>();
  const segments = await mapConcurrently(
    names.filter((name) => !known.has(name)),
    context.concurrency,
    (name) =>
      loadSegment(context, layers, name, about).catch((error) => {
        if (!(error instanceof Malformed)) throw error;
        found.set(name, error);
        return undefined;
      }),
  );
  const [first] = found.values();
  if (first !== undefined && !mayPass && segments.every((segment) => segment === undefined)) throw first;
  for (const [name, error] of found) {
    known.add(name);
    const what = `seg-${name} is passed over, as it cannot be read: ${error.message}`;
    context.warn(
      error.isLater ? `${what}; a newer nixcache may read it` : `${what}; verify --repair ends it`,
    );
  }
  return segments;
}

/**
 * A segment's own layer; undefined when the segment is gone (404), which is how one leaves, and when it does not count,
 * which is then added to `unsigned`.
 */
async function loadSegment(
  context: ProtocolContext,
  layers: LayerLoader,
  name: GenerationName,
  { liveness, unsigned }: { readonly liveness: Liveness; readonly unsigned: Set<GenerationName> },
): Promise<SegmentLayer | undefined> {
  const known = layers.ofSegment(name);
  if (known !== undefined) return known;
  const { store, signal } = context;
  const segment = await readTag(store, liveness.tagOf(name), { signal });
  if (segment === undefined) return undefined;
  const { tag, stored } = segment;
  const where = `${tag} of ${store.name}`;
  const index = indexOfSegment(context, name, stored.bytes, where);
  if (index === undefined) {
    unsigned.add(name);
    return undefined;
  }
  const layer = await layers.load(index);
  const [generation] = layer?.generations ?? [];
  if (layer?.kind === "segment" && generation !== undefined) {
    return { id: layer.id, generation: { ...generation, name } };
  }
  if (layer === undefined && (await store.statManifest(tag, { signal })) === undefined) return undefined;
  if (layer !== undefined)
    throw new Malformed(new NixcacheError("corrupt", `${where}: its first layer is no segment's`));
  throw new NixcacheError("corrupt", `${where}: its first layer is absent`, {
    hint: "The registry lost a blob that a manifest names. Run nixcache verify --repair, then publish again.",
  });
}

function groupByLayer(segments: readonly (SegmentLayer | undefined)[]): Map<number, Generation[]> {
  const groups = new Map<number, Generation[]>();
  for (const segment of segments) {
    if (segment === undefined) continue;
    groups.set(segment.id, [...(groups.get(segment.id) ?? []), segment.generation]);
  }
  return groups;
}

/**
 * Choosing the layers of the view: the reader's step 2 and 3, inside one transaction on the local index.
 */
import type { Generation } from "../cache/index-layer.ts";
import type { LayerRow, V1State } from "../cache/index-reader.ts";
import type { IndexUpdate } from "../cache/index-update.ts";
import { type BlobReference, indexLayerOf } from "../cache/manifests.ts";
import {
  adoptedTag,
  type GenerationId,
  type GenerationName,
  generationId,
  parseTag,
  segmentTag,
} from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import { decodeManifest } from "../oci/manifest.ts";
import type { ProtocolContext } from "./context.ts";
import { loadLayer } from "./load-layer.ts";
import { readTag, statTag } from "./tagged.ts";
import { readV1Index } from "./v1-index.ts";

export interface Listing {
  /** The tag list, which may lack what was pushed lately (R7). */
  readonly tags: readonly string[];
  /** The root's layers, the lowest first. */
  readonly stack: readonly BlobReference[];
  /** Generations to leave out as if they were dead. */
  readonly without: ReadonlySet<GenerationName>;
  /** What is under the tag of nixcache-oci. */
  readonly v1: V1State | undefined;
}

/**
 * Makes the view the union of all live segments, and of the index of nixcache-oci while none has adopted it.
 * Answers whether it changed, and what is known of that index now.
 */
export async function rebuildView(
  context: ProtocolContext,
  change: IndexUpdate,
  { tags, stack, without, v1 }: Listing,
): Promise<{ changed: boolean; v1: V1State | undefined }> {
  const liveness = new Liveness(context, tags, without);
  await liveness.ask(context.database.view.generations().map(({ name }) => name));
  change.addDead(liveness.dead, context.host.now());

  const layers = new LayerLoader(context, change);
  const counting = await countingLayers(context, stack, layers, liveness);
  const covered = new Set(counting.flatMap(({ generations }) => generations.map(({ name }) => name)));
  const uncovered = liveness.live().filter((name) => !covered.has(name));
  const segments = await mapConcurrently(uncovered, context.concurrency, (name) =>
    loadSegment(context, layers, name, liveness.tagOf(name)),
  );

  counting.forEach(({ id }, position) => {
    change.setPosition(id, position);
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
  return { changed, v1: foreign?.v1 };
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

/** Which generations are alive, as far as the list and exact questions tell. */
class Liveness {
  readonly dead: Set<GenerationId>;
  readonly #context: ProtocolContext;
  readonly #alive = new Map<GenerationName, boolean>();
  /** Tags as they are listed. */
  readonly #tags = new Map<GenerationName, string>();

  constructor(context: ProtocolContext, tags: readonly string[], without: ReadonlySet<GenerationName>) {
    this.#context = context;
    for (const name of without) this.#alive.set(name, false);
    const parsed = tags.map((tag) => ({ tag, parsed: parseTag(tag) }));
    this.dead = context.database.view.dead();
    for (const { parsed: its } of parsed) if (its?.kind === "dead") this.dead.add(its.id);
    for (const { tag, parsed: its } of parsed) {
      if (its?.kind !== "segment") continue;
      this.#tags.set(its.name, tag);
      if (!this.#alive.has(its.name)) this.#alive.set(its.name, !this.#isDead(its.name));
    }
  }

  /** Settles names that the list lacks: absence from a list proves nothing, so ask for the exact tag. */
  async ask(names: readonly GenerationName[]): Promise<void> {
    const open = names.filter((name) => !this.#alive.has(name));
    const { store, concurrency, signal } = this.#context;
    await mapConcurrently(open, concurrency, async (name) => {
      const alive = !this.#isDead(name) && (await statTag(store, segmentTag(name), { signal })) !== undefined;
      this.#alive.set(name, alive);
    });
  }

  #isDead(name: GenerationName): boolean {
    return this.dead.has(generationId(name));
  }

  isAlive(name: GenerationName): boolean {
    return this.#alive.get(name) ?? false;
  }

  /** The tag of a generation, in the form that was listed, where it was. */
  tagOf(name: GenerationName): string {
    return this.#tags.get(name) ?? segmentTag(name);
  }

  live(): GenerationName[] {
    return [...this.#alive].filter(([, alive]) => alive).map(([name]) => name);
  }
}

/** R5: a layer counts while everything that it and the layers below it cover is alive. */
async function countingLayers(
  context: ProtocolContext,
  stack: readonly BlobReference[],
  layers: LayerLoader,
  liveness: Liveness,
): Promise<LoadedLayer[]> {
  const counting: LoadedLayer[] = [];
  for (const reference of stack) {
    const layer = await layers.load(reference).catch((error) => {
      if (!(error instanceof NixcacheError && error.code === "corrupt")) throw error;
      context.warn(`${error.message}; reading the segments instead`);
      return undefined;
    });
    if (layer?.kind !== "root") break;
    const names = layer.generations.map(({ name }) => name);
    await liveness.ask(names);
    if (!names.every((name) => liveness.isAlive(name))) break;
    counting.push(layer);
  }
  return counting;
}

interface SegmentLayer {
  readonly id: number;
  readonly generation: Generation;
}

/** A segment's own layer; undefined when the segment is gone (404), which is how one leaves. */
async function loadSegment(
  context: ProtocolContext,
  layers: LayerLoader,
  name: GenerationName,
  listed: string,
): Promise<SegmentLayer | undefined> {
  const known = layers.ofSegment(name);
  if (known !== undefined) return known;
  const { store, signal } = context;
  const segment = await readTag(store, listed, { signal });
  if (segment === undefined) return undefined;
  const { tag, stored } = segment;
  const where = `${tag} of ${store.name}`;
  const layer = await layers.load(indexLayerOf(decodeManifest(stored.bytes, where), where));
  const [generation] = layer?.generations ?? [];
  if (layer?.kind === "segment" && generation !== undefined) {
    return { id: layer.id, generation: { ...generation, name } };
  }
  if (layer === undefined && (await store.statManifest(tag, { signal })) === undefined) return undefined;
  throw new NixcacheError("corrupt", `${where}: its first layer is ${layer ? "no segment's" : "absent"}`, {
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

interface LoadedLayer {
  readonly id: number;
  readonly kind: "segment" | "root";
  /** What it covers; for a segment's own layer the segment, whose name only its tag tells. */
  readonly generations: readonly Generation[];
}

/** Layers by digest: those of the local index, and new ones fetched into it. */
class LayerLoader {
  readonly #context: ProtocolContext;
  readonly #change: IndexUpdate;
  readonly #before: readonly LayerRow[];
  readonly #segments = new Map<GenerationName, SegmentLayer>();
  readonly #loads = new Map<string, Promise<LoadedLayer | undefined>>();
  readonly #added: number[] = [];

  constructor(context: ProtocolContext, change: IndexUpdate) {
    this.#context = context;
    this.#change = change;
    const { view } = context.database;
    this.#before = view.layers();
    for (const { id, digest, position } of this.#before) {
      const generations = view.generations(id);
      this.#loads.set(
        digest,
        Promise.resolve({ id, kind: position === null ? "segment" : "root", generations }),
      );
      if (position !== null) continue;
      for (const generation of generations) this.#segments.set(generation.name, { id, generation });
    }
  }

  ofSegment(name: GenerationName): SegmentLayer | undefined {
    return this.#segments.get(name);
  }

  /** Undefined when the blob is absent. @throws `corrupt`; nothing of the layer is then kept. */
  load(reference: BlobReference): Promise<LoadedLayer | undefined> {
    let load = this.#loads.get(reference.digest);
    if (load === undefined) {
      load = this.#fetch(reference);
      this.#loads.set(reference.digest, load);
    }
    return load;
  }

  /** The index of nixcache-oci; without it where it turns out to be of another version. @throws `corrupt` */
  async loadV1(v1: V1State, index: BlobReference): Promise<{ id?: number; v1: V1State }> {
    const known = await this.#loads.get(index.digest);
    if (known !== undefined) return { id: known.id, v1 };
    const { manifest } = v1;
    const id = this.#change.addLayer(index.digest, index.size);
    this.#added.push(id);
    const head = await readV1Index(this.#context, index, (line) => this.#change.addEntry(id, line));
    if (head === undefined) return { v1: { manifest } };
    return { id, v1: { manifest, index, keys: head.keys, generated: head.generated } };
  }

  /** Removes every other layer from the index. Answers whether that, or any load, changed the view. */
  keepOnly(ids: readonly number[]): boolean {
    const keep = new Set(ids);
    const remove = [...this.#before.map(({ id }) => id), ...this.#added].filter((id) => !keep.has(id));
    this.#change.removeLayers(remove, this.#context.host.now());
    return this.#added.some((id) => keep.has(id)) || this.#before.some(({ id }) => !keep.has(id));
  }

  async #fetch(reference: BlobReference): Promise<LoadedLayer | undefined> {
    const loaded = await loadLayer(this.#context, this.#change, reference);
    if (loaded === undefined) return undefined;
    const { id, header } = loaded;
    this.#added.push(id);
    if (header.kind === "segment") {
      return { id, kind: "segment", generations: [{ name: "", record: header.record }] };
    }
    this.#change.setGenerations(id, header.covers);
    return { id, kind: "root", generations: header.covers };
  }
}

/** The layers of a view in the making: those of the local index, and new ones fetched into it, each once. */
import type { Generation } from "../cache/index-layer.ts";
import type { LayerRow, V1State } from "../cache/index-reader.ts";
import type { IndexUpdate } from "../cache/index-update.ts";
import type { BlobReference } from "../cache/manifests.ts";
import type { GenerationName } from "../cache/tags.ts";
import type { ProtocolContext } from "./context.ts";
import { loadLayer } from "./load-layer.ts";
import { readV1Index } from "./v1-index.ts";

export interface SegmentLayer {
  readonly id: number;
  readonly generation: Generation;
}

export interface LoadedLayer {
  readonly id: number;
  readonly kind: "segment" | "root";
  /** What it covers; for a segment's own layer the segment, whose name only its tag tells. */
  readonly generations: readonly Generation[];
}

export class LayerLoader {
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
      // Under the same digest there may be what is read in another way.
      load.catch(() => this.#loads.delete(reference.digest));
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

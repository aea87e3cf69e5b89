/**
 * Reading an index layer from the store into the local index: hashed, unpacked and written down while it arrives, and
 * kept only when all of it had its digest.
 */
import type { LayerHeader } from "../cache/index-layer.ts";
import type { IndexUpdate } from "../cache/index-update.ts";
import type { BlobReference } from "../cache/manifests.ts";
import type { ProtocolContext } from "./context.ts";
import { damagedBlob, FETCHES } from "./fetch-blob.ts";
import { layerName, unpackLayer } from "./layer-blob.ts";

export interface LoadedText {
  readonly id: number;
  readonly header: LayerHeader;
}

/**
 * Undefined when the blob is absent.
 * @throws `corrupt` when digest or size do not match, twice, or for what is no index layer; nothing of it is then kept
 */
export async function loadLayer(
  { store, signal }: Pick<ProtocolContext, "store" | "signal">,
  change: IndexUpdate,
  layer: BlobReference,
): Promise<LoadedText | undefined> {
  for (let fetches = 1; ; fetches++) {
    const stream = await store.readBlob(layer.digest, { signal });
    if (stream === undefined) return undefined;
    const arriving = new Arriving(stream, layer);
    const id = change.addLayer(layer.digest, layer.size);
    try {
      const text = unpackLayer(arriving.chunks(), layer, store.name);
      const header = await change.addText(id, text, layerName(layer, store.name));
      if (await arriving.isWhole()) return { id, header };
    } catch (error) {
      // Bytes that are not the layer's may seem to be anything.
      if (await arriving.isWhole()) {
        change.dropLayer(id);
        throw error;
      }
    }
    change.dropLayer(id);
    if (fetches === FETCHES) throw damagedBlob(layer, "index layer", store);
  }
}

/** A blob on its way. */
class Arriving {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #layer: BlobReference;
  readonly #hasher = new Bun.CryptoHasher("sha256");
  #size = 0;
  #isOver = false;

  constructor(stream: ReadableStream<Uint8Array>, layer: BlobReference) {
    this.#reader = stream.getReader() as ReadableStreamDefaultReader<Uint8Array>;
    this.#layer = layer;
  }

  /** Its bytes, up to the expected size and a chunk. @throws what the store throws */
  async *chunks(): AsyncGenerator<Uint8Array> {
    for (let chunk = await this.#next(); chunk !== undefined; chunk = await this.#next()) yield chunk;
  }

  /** Takes what is left, and tells whether all was what was expected. @throws what the store throws */
  async isWhole(): Promise<boolean> {
    while ((await this.#next()) !== undefined);
    return (
      this.#size === this.#layer.size && `sha256:${this.#hasher.copy().digest("hex")}` === this.#layer.digest
    );
  }

  async #next(): Promise<Uint8Array | undefined> {
    if (this.#isOver) return undefined;
    const { done, value } = await this.#reader.read();
    if (done) {
      this.#isOver = true;
      return undefined;
    }
    this.#hasher.update(value);
    this.#size += value.length;
    if (this.#size > this.#layer.size) {
      this.#isOver = true;
      await this.#reader.cancel().catch(() => {});
    }
    return value;
  }
}

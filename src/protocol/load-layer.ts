/**
 * Reading an index layer from the store into the local index: hashed, unpacked and written down while it arrives, and
 * kept only when all of it had its digest.
 */
import type { LayerHeader } from "../cache/index-layer.ts";
import type { IndexUpdate } from "../cache/index-update.ts";
import type { LayerText } from "../cache/layer-writer.ts";
import type { BlobReference } from "../cache/manifests.ts";
import type { ProtocolContext } from "./context.ts";
import { damagedBlob, FETCHES } from "./fetch-blob.ts";
import { layerName, unpackLayer } from "./layer-blob.ts";
import { malformed } from "./malformed.ts";

export interface LoadedText {
  readonly id: number;
  readonly header: LayerHeader;
}

/**
 * Undefined when the blob is absent. Lines of a segment that are no entries are passed over, with a warning; a root with
 * one is malformed, as it would hide what the segments have.
 * @throws `corrupt` when digest or size do not match, twice; Malformed for what is no index layer. Nothing of it is then
 *   kept.
 */
export async function loadLayer(
  { store, signal, warn }: Pick<ProtocolContext, "store" | "signal" | "warn">,
  change: IndexUpdate,
  layer: BlobReference,
): Promise<LoadedText | undefined> {
  for (let fetches = 1; ; fetches++) {
    const stream = await store.readBlob(layer.digest, { signal });
    if (stream === undefined) return undefined;
    const id = await begin(change, layer, stream);
    let text: LayerText | undefined;
    try {
      text = await readInto(change, id, new Arriving(stream, layer), layerName(layer, store.name));
    } finally {
      // Whatever went wrong, also in the stream itself.
      if (text === undefined) change.dropLayer(id);
    }
    if (text?.broken !== undefined) warn(`${text.broken.message}; it is passed over, as are others like it`);
    if (text !== undefined) return { id, header: text.header };
    if (fetches === FETCHES) throw damagedBlob(layer, "index layer", store);
  }
}

/** @throws what the disk does; the stream is over then */
async function begin(
  change: IndexUpdate,
  { digest, size }: BlobReference,
  stream: ReadableStream<Uint8Array>,
): Promise<number> {
  try {
    return change.addLayer(digest, size);
  } catch (error) {
    await stream.cancel(error).catch(() => {});
    throw error;
  }
}

/** Undefined when what arrived is not the layer. */
async function readInto(
  change: IndexUpdate,
  id: number,
  arriving: Arriving,
  name: string,
): Promise<LayerText | undefined> {
  let text: LayerText;
  try {
    text = await change.addText(id, unpackLayer(arriving.chunks(), arriving.layer.size, name), name);
  } catch (error) {
    // Bytes that are not the layer's may seem to be anything.
    if (await arriving.isWhole()) throw malformed(error);
    return undefined;
  }
  if (!(await arriving.isWhole())) return undefined;
  if (text.header.kind === "root" && text.broken !== undefined) throw malformed(text.broken);
  return text;
}

/** A blob on its way. */
class Arriving {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly layer: BlobReference;
  readonly #hasher = new Bun.CryptoHasher("sha256");
  #size = 0;
  #isOver = false;

  constructor(stream: ReadableStream<Uint8Array>, layer: BlobReference) {
    this.#reader = stream.getReader() as ReadableStreamDefaultReader<Uint8Array>;
    this.layer = layer;
  }

  /** Its bytes, up to the expected size and a chunk. @throws what the store throws */
  async *chunks(): AsyncGenerator<Uint8Array> {
    for (let chunk = await this.#next(); chunk !== undefined; chunk = await this.#next()) yield chunk;
  }

  /** Takes what is left, and tells whether all was what was expected. @throws what the store throws */
  async isWhole(): Promise<boolean> {
    while ((await this.#next()) !== undefined);
    return (
      this.#size === this.layer.size && `sha256:${this.#hasher.copy().digest("hex")}` === this.layer.digest
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
    if (this.#size > this.layer.size) {
      this.#isOver = true;
      await this.#reader.cancel().catch(() => {});
    }
    return value;
  }
}

/**
 * Unpacks Zstandard (RFC 8878) frame by frame, on other threads, the next frames while the one before is used. What
 * publishes and folds write is cut into frames that know their size; anything else is unpacked as one stream.
 */
import { decompress } from "./zstd.ts";

/** The largest frame that is unpacked as a whole, in bytes, packed or not. */
const MAX_FRAME_BYTES = 16 * 1024 * 1024;

/** The least content that is worth the way to another thread, in bytes. */
const MIN_CONTENT_BYTES = 64 * 1024;

/** Frames that are unpacked ahead of the one that is used. */
const AHEAD = 2;

const MAGIC = 0xfd2fb528;
/** Type of a block that is one byte, repeated. */
const REPEATED = 1;

/**
 * The content of one or more frames. A chunk has a buffer of its own and is the receiver's, who may give it back (`giveBack`).
 * @throws for truncated or invalid input, and for bytes behind the last frame
 */
export async function* unpackFrames(compressed: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const chunks = compressed[Symbol.asyncIterator]();
  const unpacking: Promise<Uint8Array>[] = [];
  const held = new Held();
  let isEmpty = true;
  try {
    for (;;) {
      const size = frameSize(held.bytes);
      if (typeof size === "number") {
        isEmpty = false;
        const unpacked = unpackLater(held.take(size));
        // It is waited for later, and perhaps never.
        unpacked.catch(() => {});
        unpacking.push(unpacked);
        if (unpacking.length > AHEAD) yield (await unpacking.shift()) as Uint8Array;
        continue;
      }
      const next = size === "other" ? undefined : await chunks.next();
      if (next?.done === false) {
        held.add(next.value);
        continue;
      }
      while (unpacking.length > 0) yield (await unpacking.shift()) as Uint8Array;
      // A frame that is cut off, or whatever else it is: the decoder says what is wrong with it.
      if (held.bytes.length > 0 || isEmpty) yield* decompress(continued(held.bytes, chunks));
      return;
    }
  } finally {
    await chunks.return?.();
    await Promise.allSettled(unpacking);
  }
}

/**
 * Frees the memory of a chunk, whose buffer is its own, now and not when the collector comes by: the next one gets it,
 * and the system need not clear new memory for each.
 */
export function giveBack(chunk: Uint8Array): void {
  (chunk.buffer as ArrayBuffer).transfer(0);
}

async function unpackLater(frame: Uint8Array): Promise<Uint8Array> {
  try {
    return await Bun.zstdDecompress(frame as Uint8Array<ArrayBuffer>);
  } finally {
    giveBack(frame);
  }
}

/** What has come and was not taken yet. */
class Held {
  #buffer = new Uint8Array(1024 * 1024);
  #from = 0;
  #to = 0;

  get bytes(): Uint8Array {
    return this.#buffer.subarray(this.#from, this.#to);
  }

  add(chunk: Uint8Array): void {
    const { bytes } = this;
    if (this.#to + chunk.length > this.#buffer.length) {
      const needed = bytes.length + chunk.length;
      if (needed > this.#buffer.length) this.#buffer = new Uint8Array(needed * 2);
      this.#buffer.set(bytes);
      [this.#from, this.#to] = [0, bytes.length];
    }
    this.#buffer.set(chunk, this.#to);
    this.#to += chunk.length;
  }

  /** The first bytes, in a buffer of their own: the one in which they came, unless it is much larger. */
  take(size: number): Uint8Array {
    const from = this.#from;
    this.#from += size;
    if (size < this.#buffer.length / 4) return this.#buffer.slice(from, this.#from);
    const taken = this.#buffer.subarray(from, this.#from);
    const rest = this.bytes;
    this.#buffer = new Uint8Array(Math.max(this.#buffer.length, rest.length * 2));
    this.#buffer.set(rest);
    [this.#from, this.#to] = [0, rest.length];
    return taken;
  }
}

/**
 * Bytes of the frame that `bytes` begin with; undefined while its end is not there; `other` where it is no frame, does
 * not say how large its content is, or is small or large.
 */
function frameSize(bytes: Uint8Array): number | "other" | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 18) return undefined;
  if (view.getUint32(0, true) !== MAGIC) return "other";
  const descriptor = bytes[4] as number;
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const sizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] as number;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] as number;
  let at = 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes;
  const content = contentSize(view, at, sizeBytes);
  if (content < MIN_CONTENT_BYTES || content > MAX_FRAME_BYTES) return "other";
  at += sizeBytes;
  for (let isLast = false; !isLast; ) {
    if (at > MAX_FRAME_BYTES) return "other";
    if (at + 3 > bytes.length) return undefined;
    const header = view.getUint16(at, true) | ((bytes[at + 2] as number) << 16);
    isLast = (header & 1) !== 0;
    at += 3 + (((header >> 1) & 3) === REPEATED ? 1 : header >> 3);
  }
  if ((descriptor & 4) !== 0) at += 4;
  return at <= bytes.length ? at : undefined;
}

/** Infinite where the frame does not say. */
function contentSize(view: DataView, at: number, sizeBytes: number): number {
  if (sizeBytes === 1) return view.getUint8(at);
  if (sizeBytes === 2) return view.getUint16(at, true) + 256;
  if (sizeBytes === 4) return view.getUint32(at, true);
  return sizeBytes === 8 ? Number(view.getBigUint64(at, true)) : Number.POSITIVE_INFINITY;
}

/** What is held, and then the rest. */
function continued(held: Uint8Array, chunks: AsyncIterator<Uint8Array>): ReadableStream<Uint8Array> {
  let isFirst = true;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const next = isFirst ? { done: false, value: held } : await chunks.next();
      isFirst = false;
      if (next.done) controller.close();
      else controller.enqueue(next.value);
    },
  });
}

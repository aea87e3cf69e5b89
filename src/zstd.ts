/**
 * Zstandard (RFC 8878) in frames. Concatenated frames are a valid stream, so large content is cut into frames
 * that are compressed independently, side by side, with memory bounded by the size of a frame.
 *
 * `Bun.zstdCompress` works off the main thread. Decompression uses `DecompressionStream`, which holds back for
 * slow readers and reports truncated input; the decoder of `node:zlib` takes truncated input for success.
 */

export const DEFAULT_COMPRESSION_LEVEL = 3;

/** One frame holding all of `bytes`. `level` is 1 to 22. */
export function compressFrame(bytes: Uint8Array, level: number): Promise<Uint8Array> {
  return Bun.zstdCompress(bytes as Uint8Array<ArrayBuffer>, { level });
}

/** As `compressFrame`, on this thread: for what is small. */
export function compressNow(bytes: Uint8Array, level: number): Uint8Array {
  return Bun.zstdCompressSync(bytes as Uint8Array<ArrayBuffer>, { level });
}

/** The content of one or more frames. Errors on truncated or invalid input, and on bytes behind the last frame. */
export function decompress(compressed: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
  return compressed.pipeThrough(
    new DecompressionStream("zstd") as ReadableWritablePair<Uint8Array, Uint8Array>,
  );
}

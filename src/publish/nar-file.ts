/**
 * A NAR on its way into blobs: dumped, its hash compared with Nix's record, cut into zstd frames.
 * One streaming pass; memory is a few frames, whatever the size of the NAR.
 */
import { Semaphore } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import { encodeBase32 } from "../nar/base32.ts";
import type { NarVisitor } from "../nar/reader.ts";
import type { PathInfo } from "../nix/store.ts";
import { compressFrame, compressNow } from "../zstd.ts";
import { giveBack } from "../zstd-frames.ts";
import type { NarListing } from "./listing.ts";

/** Bytes of a NAR that one frame holds: twice the window of level 3, so cutting costs half a per cent. */
export const FRAME_BYTES = 4 * 1024 * 1024;

/** Compressed on the spot: the way to another thread would take longer. */
const SMALL_BYTES = 16 * 1024;

/** Dumps the NAR of a store path in chunks, each valid until the next is asked for, and tells of the tree on the way. */
export type Dump = (path: PathInfo, visitor: NarVisitor) => AsyncIterable<Uint8Array>;

/** What is wrong with one store path; others are not concerned. */
export class PathError extends NixcacheError {}

/**
 * Compresses frames on as many other threads, among all NARs. The buffers of whole frames go
 * round: left to the garbage collector, hundreds of MiB of them pile up while a large NAR passes.
 */
export class Compressor {
  readonly threads: number;
  readonly #level: number;
  readonly #slots: Semaphore;
  readonly #turns: Semaphore;
  readonly #buffers: Uint8Array[] = [];

  constructor(level: number, threads: number) {
    this.threads = threads;
    this.#level = level;
    // One more waits in line, so that no thread waits for this one to hand it the next.
    this.#slots = new Semaphore(threads + 1);
    this.#turns = new Semaphore(threads);
  }

  /** Runs what dumps and compresses, one after the other, as many at once as there are threads. */
  inTurn<R>(work: () => Promise<R>): Promise<R> {
    return this.#turns.run(work);
  }

  /** A buffer of `size` bytes for one frame, of any content. */
  buffer(size: number): Uint8Array {
    return (size === FRAME_BYTES && this.#buffers.pop()) || new Uint8Array(size);
  }

  /** The frame compressed. `bytes` belongs to the compressor from now on. */
  async frame(bytes: Uint8Array): Promise<Uint8Array> {
    if (bytes.length <= SMALL_BYTES) return compressNow(bytes, this.#level);
    const compressed = await this.#slots.run(() => compressFrame(bytes, this.#level));
    if (bytes.length === FRAME_BYTES) this.#buffers.push(bytes);
    else giveBack(bytes);
    return compressed;
  }
}

/**
 * The frames of a NAR in order, uncompressed, each `frameBytes` but the last. Ends with an error when the NAR
 * is not what Nix recorded; frames before that have been handed out.
 *
 * @param buffer makes the memory of each frame
 * @param listing is complete when the last frame has been handed out
 * @throws PathError
 */
export async function* readFrames(
  path: PathInfo,
  dump: Dump,
  frameBytes: number,
  buffer: (size: number) => Uint8Array,
  listing: NarListing,
): AsyncGenerator<Uint8Array, void, undefined> {
  const hasher = new Bun.CryptoHasher("sha256");
  let size = 0;
  let frame = buffer(Math.min(frameBytes, path.narSize));
  let filled = 0;
  for await (const chunk of readDump(path, dump, listing)) {
    hasher.update(chunk);
    size += chunk.length;
    // Longer than recorded: the rest is only counted, for the message.
    if (size > path.narSize) continue;
    for (let rest = chunk; rest.length > 0; ) {
      const piece = rest.subarray(0, frame.length - filled);
      frame.set(piece, filled);
      filled += piece.length;
      rest = rest.subarray(piece.length);
      if (filled < frame.length) continue;
      const left = path.narSize - (size - rest.length);
      if (left === 0) break;
      yield frame;
      frame = buffer(Math.min(frameBytes, left));
      filled = 0;
    }
  }
  const narHash = `sha256:${encodeBase32(hasher.digest() as Uint8Array)}`;
  if (narHash !== path.narHash || size !== path.narSize) {
    throw new PathError(
      "nix-store",
      `${path.path}: its NAR has ${size} bytes and the hash ${narHash}, Nix recorded ${path.narSize} bytes and ${path.narHash}`,
      { hint: "Run nix-store --verify --check-contents --repair: the files in the store have changed." },
    );
  }
  // The last frame only now: nothing that ends a NAR leaves before the whole was found right.
  yield frame;
}

async function* readDump(
  path: PathInfo,
  dump: Dump,
  visitor: NarVisitor,
): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    yield* dump(path, visitor);
  } catch (error) {
    if (!(error instanceof NixcacheError) || error.code === "interrupted") throw error;
    throw new PathError("nix-store", `${path.path}: ${error.message}`, { cause: error });
  }
}

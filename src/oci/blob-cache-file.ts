/**
 * A file of the blob cache: a blob's bytes, then the CRC-32 of each block of them, so that damage on disk is found
 * before the bytes of that block are handed out, whichever range was asked for. Against bytes that were wrong when
 * they came stands the digest, which was checked before the file got its name.
 *
 * ```
 * the blob                       `size` bytes
 * CRC-32 of each block of it     4 bytes for each 64 KiB, little-endian
 * ```
 */
import type { FileHandle } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { systemCode } from "../errors.ts";
import { isOwnFile } from "../system/own-folder.ts";
import { openPlain } from "../system/plain-file.ts";

const BLOCK_BYTES = 64 * 1024;
const SUM_BYTES = 4;

/** Bytes handed out at once: four blocks. */
export const CHUNK_BYTES = 4 * BLOCK_BYTES;

/** Bytes of the file of a blob of `size` bytes. */
export function cachedFileBytes(size: number): number {
  return size + Math.ceil(size / BLOCK_BYTES) * SUM_BYTES;
}

/** The checksums of a blob whose bytes come in any pieces. */
export class BlockSums {
  readonly #sums: number[] = [];
  #sum = 0;
  #inBlock = 0;

  update(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const piece = bytes.subarray(done, done + BLOCK_BYTES - this.#inBlock);
      this.#sum = crc32(piece, this.#sum);
      this.#inBlock += piece.length;
      done += piece.length;
      if (this.#inBlock === BLOCK_BYTES) this.#endBlock();
    }
  }

  /** What follows the blob in its file. Call it once, at the end. */
  bytes(): Uint8Array {
    if (this.#inBlock > 0) this.#endBlock();
    const view = new DataView(new ArrayBuffer(this.#sums.length * SUM_BYTES));
    for (const [index, sum] of this.#sums.entries()) view.setUint32(index * SUM_BYTES, sum, true);
    return new Uint8Array(view.buffer);
  }

  #endBlock(): void {
    this.#sums.push(this.#sum);
    this.#sum = 0;
    this.#inBlock = 0;
  }
}

/** A complete file, open for reading. */
export class CachedFile {
  readonly #handle: FileHandle;
  readonly #size: number;

  private constructor(handle: FileHandle, size: number) {
    this.#handle = handle;
    this.#size = size;
  }

  /**
   * The file of a blob of `size` bytes, which counts as used now; `absent`, or `damaged` when it has another size
   * cannot be opened, or can be changed by others.
   */
  static async open(path: string, size: number, nowMs: number): Promise<CachedFile | "absent" | "damaged"> {
    let handle: FileHandle;
    try {
      handle = await openPlain(path);
    } catch (error) {
      return systemCode(error) === "ENOENT" ? "absent" : "damaged";
    }
    const found = await handle.stat().catch(() => undefined);
    if (found && isOwnFile(found) && found.size === cachedFileBytes(size)) {
      // A folder that is mounted read-only still has hits, in the order of their first use.
      await handle.utimes(nowMs / 1000, nowMs / 1000).catch(() => {});
      return new CachedFile(handle, size);
    }
    await handle.close();
    return "damaged";
  }

  /** Some of the bytes from `at` on, none from `end` on; undefined when they are damaged or cannot be read. */
  async read(at: number, end: number): Promise<Uint8Array | undefined> {
    const firstBlock = Math.floor(at / BLOCK_BYTES);
    const start = firstBlock * BLOCK_BYTES;
    const stop = Math.min(this.#size, start + CHUNK_BYTES, Math.ceil(end / BLOCK_BYTES) * BLOCK_BYTES);
    const blocks = Math.ceil((stop - start) / BLOCK_BYTES);
    try {
      const [bytes, sums] = await Promise.all([
        readFully(this.#handle, start, stop - start),
        readFully(this.#handle, this.#size + firstBlock * SUM_BYTES, blocks * SUM_BYTES),
      ]);
      const view = new DataView(sums.buffer, sums.byteOffset, sums.length);
      for (let block = 0; block < blocks; block++) {
        const piece = bytes.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
        if (crc32(piece) !== view.getUint32(block * SUM_BYTES, true)) return undefined;
      }
      return bytes.subarray(at - start, Math.min(end, stop) - start);
    } catch {
      return undefined;
    }
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

/** @throws when there are fewer bytes. */
export async function readFully(handle: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await handle.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) throw new Error(`the file ended after ${offset + done} bytes`);
    done += bytesRead;
  }
  return bytes;
}

export async function writeFully(handle: FileHandle, offset: number, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, offset + done);
    done += bytesWritten;
  }
}

/** Zstd that unpacks to far more than it has bytes, and how much memory this process takes meanwhile. */
import { readFileSync, writeFileSync } from "node:fs";

export const ZSTD_MAGIC = [0x28, 0xb5, 0x2f, 0xfd];

/** A frame of blocks that each repeat one byte 128 KiB long: 4 bytes a block. RFC 8878, 3.1.1 */
export function repeated(byte: number, blocks: number, windowLog = 19): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(6 + 4 * blocks);
  frame.set([...ZSTD_MAGIC, 0x00, (windowLog - 10) << 3]);
  for (let block = 0; block < blocks; block++) {
    const header = (block === blocks - 1 ? 1 : 0) | (1 << 1) | ((128 * 1024) << 3);
    frame.set([header & 255, (header >> 8) & 255, (header >> 16) & 255, byte], 6 + 4 * block);
  }
  return frame;
}

/** The most memory that this process has held, in bytes; since `forgetPeak`. */
export function peakMemory(): number {
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]) * 1024;
}

/** Linux starts counting anew. https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html */
export function forgetPeak(): void {
  Bun.gc(true);
  writeFileSync("/proc/self/clear_refs", "5");
}

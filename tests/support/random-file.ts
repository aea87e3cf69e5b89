/** Bytes that do not compress, the same for the same seed. */
import { createCipheriv } from "node:crypto";
import { open } from "node:fs/promises";

const CHUNK = 4 * 1024 * 1024;

/** Writes `size` bytes of a cipher's key stream. */
export async function writeRandomFile(path: string, size: number, seed: number): Promise<void> {
  const cipher = createCipheriv("aes-128-ctr", Buffer.alloc(16, seed), Buffer.alloc(16));
  const file = await open(path, "w");
  try {
    for (let left = size; left > 0; left -= CHUNK) {
      await file.write(cipher.update(Buffer.alloc(Math.min(CHUNK, left))));
    }
  } finally {
    await file.close();
  }
}

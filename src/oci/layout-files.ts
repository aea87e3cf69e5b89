/**
 * Files of a layout: complete and durable, or not there. Content goes to a temporary file on the same file
 * system, is checked while it is written, flushed, and only then gets its name.
 */
import { createHash, randomUUID } from "node:crypto";
import { constants } from "node:fs";
import {
  access,
  type FileHandle,
  link,
  mkdir,
  open,
  readdir,
  rename,
  stat,
  unlink,
  utimes,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { messageOf, NixcacheError, systemCode } from "../errors.ts";
import type { Digest } from "./digest.ts";

const CHUNK_BYTES = 256 * 1024;
const DAY_MS = 24 * 60 * 60 * 1000;

/** A system error as a NixcacheError that names the path; other errors as they are. */
export function fileError(doing: string, path: string, cause: unknown): unknown {
  const code = systemCode(cause);
  if (cause instanceof NixcacheError || code === undefined) return cause;
  const hints: Record<string, string> = {
    EACCES: "Check the owner and the rights of the folder.",
    EPERM: "Check the owner and the rights of the folder.",
    EROFS: "The file system is mounted read-only.",
    ENOSPC: "The file system is full: free some space.",
    EDQUOT: "The quota is used up: free some space.",
  };
  const hint = hints[code];
  const options = hint === undefined ? { cause } : { cause, hint };
  return new NixcacheError("filesystem", `${doing} ${path}: ${messageOf(cause)}`, options);
}

/** Runs `action`; undefined when the file is not there. Everything else that goes wrong throws `filesystem`. */
export async function unlessMissing<T>(
  doing: string,
  path: string,
  action: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await action();
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    throw fileError(doing, path, error);
  }
}

/** Runs `use`, which hands the file on; closes it where that throws. */
export async function unlessThrown<T>(handle: FileHandle, use: () => Promise<T>): Promise<T> {
  try {
    return await use();
  } catch (error) {
    await handle.close().catch(() => {});
    throw error;
  }
}

/**
 * Asks whether files can be made in a folder, or the folder itself where it is missing; makes none.
 * @throws `filesystem`
 */
export async function checkWritable(folder: string): Promise<void> {
  const found = await unlessMissing("write into", folder, async () => {
    await access(folder, constants.W_OK | constants.X_OK);
    return true;
  });
  // The root of all folders is there.
  if (!found) await checkWritable(dirname(folder));
}

/** The size of a regular file in bytes; undefined when it is not there. */
export async function fileSize(path: string): Promise<number | undefined> {
  const found = await unlessMissing("read", path, () => stat(path));
  if (found === undefined || found.isFile()) return found?.size;
  throw new NixcacheError("layout", `read ${path}: it is no file`);
}

/** The whole file; undefined when it is not there. @throws `corrupt` above `limit` bytes. */
export async function readSmallFile(path: string, limit: number): Promise<Uint8Array | undefined> {
  return unlessMissing("read", path, async () => {
    const handle = await open(path, "r");
    try {
      const { size } = await handle.stat();
      if (size > limit)
        throw new NixcacheError("corrupt", `read ${path}: it has ${size} bytes, expected at most ${limit}`);
      return await handle.readFile();
    } finally {
      await handle.close();
    }
  });
}

/** Writes a small file that is replaced as a whole, durably. */
export async function replaceFile(temporary: string, path: string, bytes: Uint8Array): Promise<void> {
  const draft = join(temporary, randomUUID());
  try {
    const handle = await open(draft, "wx");
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(draft, path);
    await syncFolder(dirname(path));
  } catch (error) {
    await unlink(draft).catch(() => {});
    throw fileError("write", path, error);
  }
}

/** Makes names in a folder survive a loss of power. */
export async function syncFolder(path: string): Promise<void> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    // A folder that one may pass through and write below, but not read.
    if (systemCode(error) === "EACCES") return;
    throw fileError("read", path, error);
  }
  try {
    await handle.sync();
  } catch (error) {
    // Some file systems (CIFS, FUSE) have no such thing for folders.
    if (systemCode(error) !== "EINVAL" && systemCode(error) !== "ENOTSUP") throw error;
  } finally {
    await handle.close();
  }
}

/**
 * Stores bytes in memory as the file of their digest.
 * @throws `corrupt` when digest or length are others.
 */
export async function storeBytes(
  temporary: string,
  path: string,
  digest: Digest,
  bytes: Uint8Array,
): Promise<void> {
  checkDigest(path, digest, new Bun.CryptoHasher("sha256").update(bytes).digest("hex"));
  await replaceFile(temporary, path, bytes);
}

/**
 * Stores a file of the caller as the file of its digest: by a second name for it where the file system allows and the
 * file is not somebody else's, else by a copy. A copy is hashed while it is written. A second name is not: its digest comes from the
 * producer, who has hashed the bytes while writing that file; only its size is checked.
 * @param mode the rights that the file gets, such as 0o644.
 */
export async function storeFile(
  temporary: string,
  path: string,
  digest: Digest,
  { file, foreign = false }: { readonly file: string; readonly foreign?: boolean },
  size: number,
  mode: number,
): Promise<void> {
  let source: FileHandle;
  try {
    source = await open(file, "r");
  } catch (error) {
    throw fileError("read", file, error);
  }
  const draft = join(temporary, randomUUID());
  try {
    const found = (await source.stat()).size;
    if (found !== size)
      throw new NixcacheError("corrupt", `store ${digest}: ${file} has ${found} bytes, expected ${size}`);
    if (!foreign && (await hardLink(file, draft))) {
      // Temporary files are private; a layout may be read by others.
      await source.chmod(mode);
      await source.sync();
    } else await copy(source, draft, digest, size);
    // Replaces a damaged file of that name, which a link of its own would not.
    await rename(draft, path);
    // Renaming one of two names of the same file to the other does nothing, and leaves both.
    await unlink(draft).catch(() => {});
  } catch (error) {
    await unlink(draft).catch(() => {});
    throw fileError("write", path, error);
  } finally {
    await source.close();
  }
}

/** A stream of part of a file: pull-based, 256 KiB at a time; errors when the file ends early. */
export function streamFile(
  handle: FileHandle,
  path: string,
  offset: number,
  length: number,
): ReadableStream<Uint8Array> {
  let done = 0;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          if (done < length) {
            const chunk = new Uint8Array(Math.min(CHUNK_BYTES, length - done));
            const { bytesRead } = await handle.read(chunk, 0, chunk.length, offset + done);
            if (bytesRead === 0) {
              throw new NixcacheError(
                "corrupt",
                `read ${path}: it ended after ${offset + done} bytes, expected ${offset + length}`,
              );
            }
            done += bytesRead;
            controller.enqueue(chunk.subarray(0, bytesRead));
          }
          if (done === length) {
            await handle.close();
            controller.close();
          }
        } catch (error) {
          await handle.close().catch(() => {});
          controller.error(fileError("read", path, error));
        }
      },
      cancel: () => handle.close(),
    },
    { highWaterMark: 0 },
  );
}

/** Tells a later collector that somebody relies on this file from now on. Not allowed to matter. */
export async function touch(path: string, nowMs: number): Promise<void> {
  await utimes(path, nowMs / 1000, nowMs / 1000).catch(() => {});
}

/** Removes what killed processes have left, once it is a day old. Failures change nothing. */
export async function removeLeftovers(temporary: string, nowMs: number): Promise<void> {
  for (const name of await readdir(temporary).catch(() => [])) {
    const path = join(temporary, name);
    const found = await stat(path).catch(() => undefined);
    if (found !== undefined && nowMs - found.ctimeMs > DAY_MS) await unlink(path).catch(() => {});
  }
}

export async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true });
  } catch (error) {
    throw fileError("create", path, error);
  }
}

async function hardLink(file: string, draft: string): Promise<boolean> {
  try {
    await link(file, draft);
    return true;
  } catch (error) {
    // Another file system, one without links, too many of them, or somebody else's file.
    if (
      ["EXDEV", "EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK", "EACCES"].includes(
        systemCode(error) ?? "",
      )
    )
      return false;
    throw error;
  }
}

async function copy(source: FileHandle, draft: string, digest: Digest, size: number): Promise<void> {
  const target = await open(draft, "wx");
  try {
    const hash = createHash("sha256");
    const chunk = new Uint8Array(CHUNK_BYTES);
    let done = 0;
    while (done < size) {
      const { bytesRead } = await source.read(chunk, 0, chunk.length, done);
      if (bytesRead === 0) break;
      const piece = chunk.subarray(0, bytesRead);
      hash.update(piece);
      for (let written = 0; written < bytesRead; ) {
        written += (await target.write(piece, written, bytesRead - written)).bytesWritten;
      }
      done += bytesRead;
    }
    checkDigest(draft, digest, hash.digest("hex"));
    await target.sync();
  } finally {
    await target.close();
  }
}

function checkDigest(path: string, expected: Digest, hex: string): void {
  if (expected === `sha256:${hex}`) return;
  throw new NixcacheError(
    "corrupt",
    `write ${path}: the bytes have the digest sha256:${hex}, expected ${expected}`,
  );
}

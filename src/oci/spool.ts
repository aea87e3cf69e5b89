/**
 * Blobs in the making: bytes are hashed as they come and kept in memory up to a bound, beyond it in a file.
 *
 * A registry wants digest and length before the first byte, so a blob must be whole before its upload starts;
 * on disk it costs no memory, whatever its size. Each run has a folder of its own, removed at the end; the
 * folders of runs that were killed are removed by a later run.
 */
import { closeSync, lstatSync, openSync, readdirSync, readSync, rmSync, writeSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { messageOf, NixcacheError, systemCode } from "../errors.ts";
import { makeTemporaryFolder, removeOwnFolder, UnsafeFolder } from "../system/own-folder.ts";
import { ownUser } from "../system/users.ts";
import type { Digest } from "./digest.ts";
import type { BlobSource } from "./store.ts";

/** Bytes that one blob keeps in memory before it goes to disk. */
const MEMORY_BYTES = 8 * 1024 * 1024;

/** Names the machine too: the folder may be shared by containers that do not see each other's processes. */
const PREFIX = `nixcache-spool-${hostname()}-`;

export class Spool {
  readonly #parent: string;
  #directory: string | undefined;
  #count = 0;

  /** @param parent an existing or creatable folder on a file system with room for a few parts. */
  constructor(parent: string) {
    this.#parent = parent;
  }

  writer(): BlobWriter {
    return new BlobWriter(() => this.#nextFile());
  }

  /** The blob of what `fill` writes. @throws what `fill` throws; nothing is left of the blob then */
  async make(fill: (writer: BlobWriter) => Promise<void>): Promise<BlobSource> {
    const writer = this.writer();
    try {
      await fill(writer);
      return await writer.finish();
    } catch (error) {
      await writer.abort();
      throw error;
    }
  }

  /** Removes every file of this run. Blobs made here must not be used afterwards. */
  [Symbol.dispose](): void {
    if (this.#directory !== undefined) rmSync(this.#directory, { recursive: true, force: true });
    this.#directory = undefined;
  }

  #nextFile(): string {
    if (this.#directory === undefined) {
      try {
        this.#directory = makeTemporaryFolder(this.#parent, `${PREFIX}${process.pid}-`);
        removeAbandoned(this.#parent);
      } catch (cause) {
        if (cause instanceof UnsafeFolder) throw cause;
        throw spoolError(this.#parent, cause);
      }
    }
    return join(this.#directory, String(this.#count++));
  }
}

/** One blob in the making. Write, then `finish` once; `abort` instead of it when the content failed, or that did. */
export class BlobWriter {
  readonly #nextFile: () => string;
  readonly #hasher = new Bun.CryptoHasher("sha256");
  #size = 0;
  #memory: Uint8Array[] = [];
  #file: { path: string; handle: FileHandle } | undefined;

  constructor(nextFile: () => string) {
    this.#nextFile = nextFile;
  }

  /** Bytes so far. */
  get size(): number {
    return this.#size;
  }

  /** A hasher that has seen all bytes so far. */
  hasher(): Bun.CryptoHasher {
    return this.#hasher.copy();
  }

  /** The bytes must not change afterwards: they may be kept. */
  async write(bytes: Uint8Array): Promise<void> {
    this.#hasher.update(bytes);
    this.#size += bytes.length;
    if (this.#file === undefined && this.#size <= MEMORY_BYTES) {
      this.#memory.push(bytes);
      return;
    }
    this.#file ??= await createFile(this.#nextFile());
    const { path, handle } = this.#file;
    try {
      for (const piece of this.#memory.splice(0)) writeAll(handle, piece);
      writeAll(handle, bytes);
    } catch (cause) {
      await this.abort();
      throw spoolError(path, cause);
    }
  }

  async finish(): Promise<BlobSource> {
    const digest: Digest = `sha256:${this.#hasher.digest("hex")}`;
    if (this.#file === undefined) {
      const content = Buffer.concat(this.#memory);
      this.#memory = [];
      return { digest, size: this.#size, content };
    }
    const { path, handle } = this.#file;
    try {
      await handle.close();
    } catch (cause) {
      await this.abort();
      throw spoolError(path, cause);
    }
    return { digest, size: this.#size, content: { file: path } };
  }

  async abort(): Promise<void> {
    this.#memory = [];
    if (this.#file === undefined) return;
    await this.#file.handle.close().catch(() => {});
    rmSync(this.#file.path, { force: true });
    this.#file = undefined;
  }
}

/** Removes the file behind a blob, if there is one; its memory goes by itself. */
export function discardBlob(blob: BlobSource): void {
  if ("file" in blob.content) rmSync(blob.content.file, { force: true });
}

/** The blob's bytes as a stream that holds back. */
export function streamBlob(blob: BlobSource): ReadableStream<Uint8Array> {
  return "file" in blob.content
    ? Bun.file(blob.content.file).stream()
    : new Blob([blob.content as Uint8Array<ArrayBuffer>]).stream();
}

/** Bytes that `readBlobNow` reads at once. */
const READ_BYTES = 1024 * 1024;

/** The blob's bytes, without waiting. A chunk is valid until the next is asked for. */
export function* readBlobNow({ content }: BlobSource): Generator<Uint8Array, void, undefined> {
  if (!("file" in content)) {
    yield content;
    return;
  }
  const file = openSync(content.file, "r");
  try {
    const buffer = new Uint8Array(READ_BYTES);
    for (let read = readSync(file, buffer); read > 0; read = readSync(file, buffer))
      yield buffer.subarray(0, read);
  } finally {
    closeSync(file);
  }
}

async function createFile(path: string): Promise<{ path: string; handle: FileHandle }> {
  try {
    return { path, handle: await open(path, "wx", 0o600) };
  } catch (cause) {
    throw spoolError(path, cause);
  }
}

/** On this thread: what is written here was made on others, and a write would wait until they have made more. */
function writeAll(handle: FileHandle, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(handle.fd, bytes, done, bytes.length - done);
  }
}

function removeAbandoned(parent: string): void {
  for (const name of readdirSync(parent)) {
    const pid = name.startsWith(PREFIX) ? Number.parseInt(name.slice(PREFIX.length), 10) : Number.NaN;
    if (!Number.isInteger(pid) || isRunning(pid)) continue;
    const folder = join(parent, name);
    // In a folder for all users others may make folders of that name.
    if (lstatSync(folder, { throwIfNoEntry: false })?.uid === ownUser())
      removeOwnFolder(folder, (file) => /^\d+$/.test(file));
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it runs as somebody else.
    return systemCode(error) !== "ESRCH";
  }
}

function spoolError(path: string, cause: unknown): NixcacheError {
  return new NixcacheError("filesystem", `cannot write the temporary file ${path}: ${messageOf(cause)}`, {
    hint: "Free some space, or set TMPDIR to a folder on a larger file system.",
    cause,
  });
}

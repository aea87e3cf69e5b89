/**
 * Dumps a file, symlink or directory tree as a NAR, byte for byte as `nix-store --dump` does.
 *
 * Names are bytes from end to end, since they need not be UTF-8. Files are read synchronously straight into the chunk, at
 * most a MiB at once: a store path may have 100,000 of them, and a trip to a thread for each costs many times the read.
 * For large ones it costs more, too: while frames are compressed every thread has work, and a read would wait for it.
 */
import {
  closeSync,
  constants,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  type Stats,
} from "node:fs";
import { messageOf, NixcacheError } from "../errors.ts";
import {
  CASE_HACK_SUFFIX,
  compareNames,
  encodeWords,
  MAX_TARGET_LENGTH,
  NAR_MAGIC,
  paddingOf,
  writeLength,
  writeString,
} from "./archive.ts";
import type { NarVisitor } from "./reader.ts";

export interface DumpOptions {
  /** Strip `~nix~case~hack~N` from names. Default: on macOS only, as Nix does. */
  readonly caseHack?: boolean | undefined;
  /** Told of the tree on the way, as a NarReader would tell of the NAR, but for the contents of files. */
  readonly visitor?: Omit<NarVisitor, "contents"> | undefined;
}

/** Bytes of a chunk. The first is smaller: most store paths fit in it, and memory is asked for in advance. */
const CHUNK_SIZE = 1024 * 1024;
const FIRST_CHUNK_SIZE = 64 * 1024;

/** More bytes than one step of the walk writes, contents aside: a target of 4095 or a name of 255, and words. */
const STEP_SIZE = 8192;

/** Chunks that dumps have left for the next ones: the system clears what it gives. At most as many as are made at once. */
const spare: Buffer<ArrayBuffer>[] = [];
const MAX_SPARE = 4;

const HEADER = encodeWords(NAR_MAGIC);
const REGULAR = encodeWords("(", "type", "regular", "contents");
const EXECUTABLE = encodeWords("(", "type", "regular", "executable", "", "contents");
const SYMLINK = encodeWords("(", "type", "symlink", "target");
const DIRECTORY = encodeWords("(", "type", "directory");
const ENTRY = encodeWords("entry", "(", "name");
const NODE = encodeWords("node");
const CLOSE = encodeWords(")");
const CLOSE_NODE_AND_ENTRY = encodeWords(")", ")");

const SLASH = Buffer.from("/");
const CASE_HACK = Buffer.from(CASE_HACK_SUFFIX);

/** A folder that is being walked. */
interface Folder {
  readonly path: Buffer;
  /** Names on disk, in the order in which they are archived. */
  readonly files: readonly Buffer[];
  /** Names in the archive; the same array where nothing is stripped. */
  readonly names: readonly Buffer[];
  next: number;
}

/**
 * The NAR of `path` in chunks of about 1 MiB. A chunk is valid until the next one is asked for: its memory is used
 * again, since a NAR of GiB would otherwise leave as much to the garbage collector. A symlink is not followed.
 * @throws `filesystem`, naming the file, when it cannot be read, is a fifo, socket or device, or changes size
 * while it is read.
 */
export async function* dumpNar(
  path: string | Uint8Array,
  options: DumpOptions = {},
): AsyncGenerator<Uint8Array, void, void> {
  const chunk = new Chunk();
  try {
    yield* dumpInto(chunk, path, options);
  } finally {
    chunk.leave();
  }
}

async function* dumpInto(
  chunk: Chunk,
  path: string | Uint8Array,
  { visitor, caseHack = process.platform === "darwin" }: DumpOptions,
): AsyncGenerator<Uint8Array, void, void> {
  const folders: Folder[] = [];
  let node: Buffer | undefined = typeof path === "string" ? Buffer.from(path) : Buffer.from(path);
  let nodeName: Buffer | undefined;
  chunk.put(HEADER);

  while (node !== undefined) {
    if (chunk.room < STEP_SIZE) yield chunk.take();
    const stats = lstat(node);
    if (stats.isDirectory()) {
      chunk.put(DIRECTORY);
      visitor?.directory?.(nodeName);
      folders.push(openFolder(node, caseHack));
    } else if (stats.isSymbolicLink()) {
      chunk.put(SYMLINK);
      const target = readTarget(node);
      chunk.putString(target);
      visitor?.symlink?.(nodeName, target);
      chunk.put(folders.length > 0 ? CLOSE_NODE_AND_ENTRY : CLOSE);
    } else if (stats.isFile()) {
      const executable = (stats.mode & constants.S_IXUSR) !== 0;
      chunk.put(executable ? EXECUTABLE : REGULAR);
      chunk.putLength(stats.size);
      visitor?.regular?.(nodeName, { executable, size: stats.size, offset: chunk.position });
      const fd = openFile(node);
      try {
        let left = stats.size;
        for (;;) {
          if (chunk.room === 0) yield chunk.take();
          // One byte more than is left, so that the end of the file is seen.
          const wanted = Math.min(left + 1, chunk.room);
          const got = readNow(fd, chunk, wanted, node);
          if (got > left || (got === 0 && left > 0)) throw changed(node, stats.size);
          chunk.used += got;
          left -= got;
          if (left === 0 && got < wanted) break;
        }
      } finally {
        closeSync(fd);
      }
      if (chunk.room < STEP_SIZE) yield chunk.take();
      chunk.putZeros(paddingOf(stats.size));
      chunk.put(folders.length > 0 ? CLOSE_NODE_AND_ENTRY : CLOSE);
    } else {
      throw new NixcacheError(
        "filesystem",
        `dump ${quote(node)}: got ${kindOf(stats)}, expected a regular file, a symlink or a directory`,
      );
    }

    node = undefined;
    for (let folder = folders.at(-1); folder !== undefined; folder = folders.at(-1)) {
      if (chunk.room < STEP_SIZE) yield chunk.take();
      const file = folder.files[folder.next];
      const name = folder.names[folder.next];
      if (file !== undefined && name !== undefined) {
        folder.next++;
        chunk.put(ENTRY);
        chunk.putString(name);
        chunk.put(NODE);
        node = Buffer.concat([folder.path, SLASH, file]);
        nodeName = name;
        break;
      }
      folders.pop();
      visitor?.endDirectory?.();
      chunk.put(folders.length > 0 ? CLOSE_NODE_AND_ENTRY : CLOSE);
    }
  }
  yield chunk.bytes.subarray(0, chunk.used);
}

/** The chunk that is being filled. Whoever puts something in has made sure that there is room. */
class Chunk {
  bytes = Buffer.allocUnsafeSlow(FIRST_CHUNK_SIZE);
  used = 0;
  #taken = 0;

  /** Bytes of the NAR so far. */
  get position(): number {
    return this.#taken + this.used;
  }

  get room(): number {
    return this.bytes.length - this.used;
  }

  put(bytes: Uint8Array): void {
    this.bytes.set(bytes, this.used);
    this.used += bytes.length;
  }

  putString(bytes: Uint8Array): void {
    this.used = writeString(this.bytes, this.used, bytes);
  }

  putLength(length: number): void {
    this.used = writeLength(this.bytes, this.used, length);
  }

  putZeros(count: number): void {
    this.bytes.fill(0, this.used, this.used + count);
    this.used += count;
  }

  /** What is in the chunk. From now on the next one is filled, in the same memory once it has its full size. */
  take(): Uint8Array {
    const taken = this.bytes.subarray(0, this.used);
    this.#taken += this.used;
    if (this.bytes.length < CHUNK_SIZE) this.bytes = spare.pop() ?? Buffer.allocUnsafeSlow(CHUNK_SIZE);
    this.used = 0;
    return taken;
  }

  /** Nobody looks at it any more. */
  leave(): void {
    if (this.bytes.length === CHUNK_SIZE && spare.length < MAX_SPARE) spare.push(this.bytes);
  }
}

function lstat(path: Buffer): Stats {
  try {
    return lstatSync(path);
  } catch (error) {
    throw failed(path, error);
  }
}

function openFolder(path: Buffer, caseHack: boolean): Folder {
  let files: Buffer[];
  try {
    files = readdirSync(path, { encoding: "buffer" });
  } catch (error) {
    throw failed(path, error);
  }
  if (!caseHack) {
    files.sort(compareNames);
    return { path, files, names: files, next: 0 };
  }
  const entries = files.map((file) => ({ file, name: stripCaseHack(file) }));
  entries.sort((left, right) => compareNames(left.name, right.name));
  for (const [index, entry] of entries.entries()) {
    const before = entries[index - 1];
    if (before !== undefined && compareNames(before.name, entry.name) === 0) {
      throw new NixcacheError(
        "filesystem",
        `dump ${quote(path)}: ${quote(before.file)} and ${quote(entry.file)} are the same name without ${CASE_HACK_SUFFIX}`,
      );
    }
  }
  return { path, files: entries.map(({ file }) => file), names: entries.map(({ name }) => name), next: 0 };
}

function stripCaseHack(file: Buffer): Buffer {
  const position = file.indexOf(CASE_HACK);
  return position < 0 ? file : file.subarray(0, position);
}

function readTarget(path: Buffer): Buffer {
  let target: Buffer;
  try {
    target = readlinkSync(path, { encoding: "buffer" });
  } catch (error) {
    throw failed(path, error);
  }
  if (target.length >= 1 && target.length <= MAX_TARGET_LENGTH) return target;
  throw new NixcacheError(
    "filesystem",
    `dump ${quote(path)}: got a symlink target of ${target.length} bytes, expected 1 to ${MAX_TARGET_LENGTH}`,
  );
}

function openFile(path: Buffer): number {
  try {
    // It was no symlink a moment ago; should it be one now, it must not lead elsewhere.
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    throw failed(path, error);
  }
}

function readNow(fd: number, chunk: Chunk, length: number, path: Buffer): number {
  try {
    return readSync(fd, chunk.bytes, chunk.used, length, null);
  } catch (error) {
    throw failed(path, error);
  }
}

function failed(path: Buffer, cause: unknown): NixcacheError {
  return new NixcacheError("filesystem", `dump ${quote(path)}: ${messageOf(cause)}`, { cause });
}

function changed(path: Buffer, size: number): NixcacheError {
  return new NixcacheError(
    "filesystem",
    `dump ${quote(path)}: the file changed while it was read, expected ${size} bytes`,
    {
      hint: "Dump it again when nothing writes to it.",
    },
  );
}

function quote(path: Buffer): string {
  return JSON.stringify(path.toString());
}

function kindOf(stats: Stats): string {
  if (stats.isFIFO()) return "a fifo";
  if (stats.isSocket()) return "a socket";
  return stats.isBlockDevice() || stats.isCharacterDevice() ? "a device" : "something unknown";
}

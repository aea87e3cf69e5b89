/**
 * Files of other people, changed as a whole: whoever reads sees the old one or the new one, also after a power cut.
 * Mode and owner stay. Where the name is a symbolic link, the file that it leads to is replaced and the link stays.
 */
import {
  closeSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { messageOf, NixcacheError, systemCode } from "../errors.ts";
import { checkWayTo } from "./own-folder.ts";

/** More than any file of settings has, in bytes. */
const MAX_BYTES = 16 * 1024 * 1024;

export interface ExistingFile {
  /** Where the bytes are, behind all links. */
  readonly path: string;
  readonly bytes: Buffer;
  readonly stats: Stats;
}

/** Undefined when nothing is there. @throws `filesystem` */
export function readExisting(file: string): ExistingFile | undefined {
  let path: string;
  try {
    path = realpathSync(file);
  } catch (cause) {
    // A link to what is not there is no empty file: somebody meant it to lead somewhere.
    if (systemCode(cause) === "ENOENT" && !isLink(file)) return undefined;
    throw new NixcacheError("filesystem", `cannot read ${file}: ${messageOf(cause)}`, { cause });
  }
  try {
    const stats = statSync(path);
    if (!stats.isFile()) throw new Error("it is no file");
    if (stats.size > MAX_BYTES) throw new Error(`it has ${stats.size} bytes`);
    return { path, bytes: readFileSync(path), stats };
  } catch (cause) {
    throw new NixcacheError("filesystem", `cannot read ${file}: ${messageOf(cause)}`, { cause });
  }
}

/**
 * @param before what `readExisting` gave; its folder is made where there was nothing
 * @throws `filesystem`; the file is as it was then
 */
export function replaceFile(file: string, before: ExistingFile | undefined, bytes: Uint8Array): void {
  const path = before?.path ?? file;
  const temporary = join(dirname(path), `.nixcache-${crypto.randomUUID()}`);
  let fd: number | undefined;
  // Another user could have us write what a link of theirs leads to.
  checkWayTo(file);
  try {
    if (before === undefined) mkdirSync(dirname(path), { recursive: true });
    fd = openSync(temporary, "wx", before === undefined ? 0o644 : 0o600);
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
    if (before !== undefined) keepOwner(fd, before.stats);
    fsyncSync(fd);
    if (hasChanged(before)) throw new Error("somebody else has changed it just now; run this again");
    renameSync(temporary, path);
    syncFolder(dirname(path));
  } catch (cause) {
    if (fd !== undefined) rmSync(temporary, { force: true });
    const denied = systemCode(cause) === "EACCES" && {
      hint: "Run it with the rights of its owner, such as by sudo.",
    };
    throw new NixcacheError("filesystem", `cannot write ${file}: ${messageOf(cause)}`, { cause, ...denied });
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** @throws `filesystem` */
export function removeFile(file: string): void {
  try {
    rmSync(file);
    syncFolder(dirname(file));
  } catch (cause) {
    throw new NixcacheError("filesystem", `cannot remove ${file}: ${messageOf(cause)}`, { cause });
  }
}

function keepOwner(fd: number, { uid, gid, mode }: Stats): void {
  const own = fstatSync(fd);
  // Changing the owner takes set-id bits away, so the mode comes last.
  if (own.uid !== uid || own.gid !== gid) fchownSync(fd, uid, gid);
  fchmodSync(fd, mode & 0o7777);
}

function hasChanged(before: ExistingFile | undefined): boolean {
  if (before === undefined) return false;
  const now = statSync(before.path);
  const { ino, size, mtimeMs } = before.stats;
  return now.ino !== ino || now.size !== size || now.mtimeMs !== mtimeMs;
}

function syncFolder(folder: string): void {
  const fd = openSync(folder, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function isLink(file: string): boolean {
  return lstatSync(file, { throwIfNoEntry: false })?.isSymbolicLink() === true;
}

/**
 * The door to files that somebody else may have put there: plain ones alone. A link would lead out of the folder, and
 * opening or reading a pipe or a device waits for somebody, or does something.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, type Stats } from "node:fs";
import { type FileHandle, lstat, open } from "node:fs/promises";
import { NixcacheError, systemCode } from "../errors.ts";

const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** Opens a file for reading. @throws NotPlain; what the file system says, such as ENOENT */
export async function openPlain(path: string): Promise<FileHandle> {
  // A device may do something when it is opened.
  checkPlain(path, await lstat(path));
  const handle = await open(path, FLAGS).catch((error) => {
    throw isLink(error) ? new NotPlain(path, "a symbolic link") : error;
  });
  try {
    checkPlain(path, await handle.stat());
    return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** As `openPlain`, without waiting. @returns a file descriptor */
export function openPlainNow(path: string): number {
  checkPlain(path, lstatSync(path));
  const fd = openSync(path, FLAGS);
  try {
    checkPlain(path, fstatSync(fd));
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** @throws NotPlain */
export function checkPlain(path: string, stats: Stats): void {
  if (!stats.isFile()) throw new NotPlain(path, kindOf(stats));
}

/** Something else than a file stands in the place of one. */
export class NotPlain extends NixcacheError {
  constructor(path: string, found: string) {
    super("corrupt", `read ${path}: it is ${found}, expected a plain file`, {
      hint: `Find out who has put it there, and remove ${path}.`,
    });
  }
}

function kindOf(stats: Stats): string {
  if (stats.isSymbolicLink()) return "a symbolic link";
  if (stats.isDirectory()) return "a folder";
  if (stats.isFIFO()) return "a pipe";
  if (stats.isSocket()) return "a socket";
  return "a device";
}

function isLink(error: unknown): boolean {
  return systemCode(error) === "ELOOP";
}

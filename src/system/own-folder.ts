/**
 * The door to folders with files of ours: index, layers, NARs on disk, journal, queue, spool. Whoever can write into such
 * a folder, or into one above it, could plant a link there and have us delete or overwrite what it leads to. So every
 * folder on the way is looked at, as `sshd` does for keys; after that nobody else can change what the path means.
 */
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmdirSync,
  type Stats,
  unlinkSync,
} from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { messageOf, NixcacheError, systemCode } from "../errors.ts";
import { groupName, isPrivateGroup, ownUser, unmappedRoot, userName } from "./users.ts";

/** No other user of the machine may look into a folder of ours. */
const FOLDER_MODE = 0o700;

/** As Linux follows at most. */
const MAX_LINKS = 40;

const [GROUP_WRITES, OTHERS_WRITE, STICKY] = [0o020, 0o002, 0o1000];

/** A folder of ours cannot be used. */
export class UnusableFolder extends NixcacheError {}

/** Another user can change what is in it. */
export class UnsafeFolder extends UnusableFolder {
  /** @param folder the one that we want @param reason whose what is @param mend a command */
  constructor(folder: string, reason: string, mend: string) {
    super("filesystem", `cannot use the folder ${folder}: ${reason}`, {
      hint: `Run "${mend}" as its owner or as root, or name a folder that only you can write.`,
    });
  }
}

/**
 * Makes a folder, for us alone, and folders in it; finds that nobody else can write into any of them.
 * @param path links on the way to it are followed where only we or root could have made them
 * @param names of the folders, each within the one before; they are never links
 * @returns the path of the last one
 * @throws UnsafeFolder; `filesystem`
 */
export function openOwnFolder(path: string, ...names: readonly string[]): string {
  try {
    let folder = resolve(path);
    makeMissing(folder, checkedWay(folder, "folder"));
    for (const name of names) {
      folder = join(folder, name);
      makeFolder(folder);
      const stats = lstatSync(folder);
      if (!stats.isDirectory()) throw noFolder(path, folder, stats);
      checkWriters(path, folder, stats, false);
    }
    return folder;
  } catch (error) {
    throw folderError(path, error);
  }
}

/**
 * A new folder for temporary files, for us alone.
 * @param parent made where it is missing; others may write into it where it is sticky, as `/tmp` is
 * @throws UnsafeFolder; `filesystem`
 */
export function makeTemporaryFolder(parent: string, prefix: string): string {
  try {
    checkSharedFolder(parent);
    return mkdtempSync(join(parent, prefix));
  } catch (error) {
    throw folderError(parent, error);
  }
}

/** Makes a folder for temporary folders where it is missing. @throws as `makeTemporaryFolder` */
export function checkSharedFolder(path: string): void {
  const folder = resolve(path);
  makeMissing(folder, checkedWay(folder, "shared folder"));
}

/**
 * Removes files that are ours by their name from a folder that has been opened, and the folder where that leaves it
 * empty. A link in place of the folder is removed itself. Failures change nothing.
 */
export function removeOwnFolder(folder: string, isOurs: (name: string) => boolean): void {
  const stats = lstatSync(folder, { throwIfNoEntry: false });
  if (stats === undefined) return;
  try {
    if (stats.isDirectory()) {
      for (const name of readdirSync(folder)) if (isOurs(name)) removeOwnFile(join(folder, name));
      rmdirSync(folder);
    } else unlinkSync(folder);
  } catch {
    // Somebody else has put something there, or was faster.
  }
}

/** Removes a file or link; one that is not there is fine. @throws what the file system says */
export function removeOwnFile(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (systemCode(error) !== "ENOENT") throw error;
  }
}

/** Whether these are of a plain file that nobody but us can change. */
export function isOwnFile(stats: Stats): boolean {
  return stats.isFile() && otherWriter(stats, false) === undefined;
}

/** A name that is drawn anew for each file or folder in the making. */
export function isDrawnName(name: string): boolean {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(name);
}

/** Makes an empty file that only we can read, where nothing is. @throws what the file system says, for links too */
export function makePrivateFile(path: string): void {
  const fd = openSync(
    path,
    constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK,
    0o600,
  );
  try {
    if ((fstatSync(fd).mode & 0o077) !== 0) fchmodSync(fd, 0o600);
  } finally {
    closeSync(fd);
  }
}

/**
 * Looks at the folders and links on the way to a file, which need not be there.
 * @throws UnsafeFolder where another user could lead us to another file
 */
export function checkWayTo(file: string): void {
  try {
    checkedWay(resolve(file), "file");
  } catch (error) {
    throw folderError(dirname(file), error);
  }
}

/**
 * Looks at every folder and link on the way.
 * @param last what is at its end; others may write into a shared folder if it is sticky
 * @returns where it really is, whether it is there or not
 */
function checkedWay(path: string, last: "folder" | "shared folder" | "file"): string {
  const names = path.split("/").filter(Boolean);
  let at = "/";
  checkWriters(path, at, lstatSync(at), true);
  for (let links = 0; names.length > 0; ) {
    const name = names.shift() as string;
    if (name === ".") continue;
    if (name === "..") {
      at = dirname(at);
      continue;
    }
    const next = join(at, name);
    const stats = lstatSync(next, { throwIfNoEntry: false });
    if (stats === undefined) return join(at, name, ...names);
    if (stats.isSymbolicLink()) {
      if (!isTrusted(stats.uid)) {
        throw new UnsafeFolder(path, `the link ${next} belongs to ${userName(stats.uid)}`, `rm ${next}`);
      }
      if (++links > MAX_LINKS) throw new Error("too many links");
      const target = readlinkSync(next);
      if (target.startsWith("/")) at = "/";
      names.unshift(...target.split("/").filter(Boolean));
      continue;
    }
    // What is no folder cannot be written into, which is then said.
    if (last === "file" && (names.length === 0 || !stats.isDirectory())) return next;
    if (!stats.isDirectory()) throw noFolder(path, next, stats);
    checkWriters(path, next, stats, last === "shared folder" || names.length > 0);
    at = next;
  }
  return at;
}

/** @param real the same folder without links, of which the last ones may be missing */
function makeMissing(path: string, real: string): void {
  if (lstatSync(real, { throwIfNoEntry: false }) !== undefined) return;
  mkdirSync(real, { recursive: true, mode: FOLDER_MODE });
  // In a sticky folder somebody may have been faster.
  checkedWay(path, "folder");
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: FOLDER_MODE });
  } catch (error) {
    if (systemCode(error) !== "EEXIST") throw error;
  }
}

function checkWriters(wanted: string, folder: string, stats: Stats, mayBeSticky: boolean): void {
  const found = otherWriter(stats, mayBeSticky);
  if (found === undefined) return;
  throw new UnsafeFolder(wanted, `${folder} ${found.reason}`, `${found.command} ${folder}`);
}

interface Writer {
  readonly reason: string;
  readonly command: string;
}

function otherWriter({ uid, gid, mode }: Stats, mayBeSticky: boolean): Writer | undefined {
  if (!isTrusted(uid)) {
    return { reason: `belongs to ${userName(uid)}`, command: `chown ${userName(ownUser())}` };
  }
  if (mayBeSticky && (mode & STICKY) !== 0) return undefined;
  if ((mode & OTHERS_WRITE) !== 0) {
    return { reason: `belongs to ${userName(uid)}, and every user can write it`, command: "chmod go-w" };
  }
  if ((mode & GROUP_WRITES) !== 0 && !isPrivateGroup(gid)) {
    const reason = `belongs to ${userName(uid)}, and the group ${groupName(gid)} can write it`;
    return { reason, command: "chmod g-w" };
  }
  return undefined;
}

/**
 * We, root, and the owner of our home: who can write there chooses programs that we run, such as credential helpers. In
 * jobs of GitHub Actions with a container the home of root belongs to another user.
 */
function isTrusted(uid: number): boolean {
  return uid === 0 || uid === ownUser() || uid === unmappedRoot() || uid === homeOwner();
}

function homeOwner(): number | undefined {
  return lstatSync(homedir(), { throwIfNoEntry: false })?.uid;
}

function noFolder(wanted: string, path: string, stats: Stats): NixcacheError {
  const found = stats.isSymbolicLink() ? "a link" : "no folder";
  return new UnusableFolder("filesystem", `cannot use the folder ${wanted}: ${path} is ${found}`, {
    hint: `Remove ${path}, or name another folder.`,
  });
}

function folderError(path: string, cause: unknown): unknown {
  if (cause instanceof NixcacheError || systemCode(cause) === undefined) return cause;
  return new UnusableFolder("filesystem", `cannot use the folder ${path}: ${messageOf(cause)}`, { cause });
}

/** A secret of ours that stays the same from one run to the next. */
import { randomBytes, randomUUID } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  linkSync,
  openSync,
  readSync,
  rmSync,
  writeSync,
} from "node:fs";
import { systemCode } from "../errors.ts";

const BYTES = 32;

/** 32 bytes: those in the file, which is made where there is none; others where it cannot be, or is not ours alone. */
export function keptSecret(file: string): Uint8Array {
  try {
    return read(file) ?? write(file) ?? read(file) ?? randomBytes(BYTES);
  } catch {
    return randomBytes(BYTES);
  }
}

/** Undefined when there is none. */
function read(file: string): Uint8Array | undefined {
  let fd: number;
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    throw error;
  }
  try {
    const { uid, mode, size } = fstatSync(fd);
    const isOurs = uid === process.geteuid?.() && (mode & 0o7777) === 0o600;
    const bytes = Buffer.alloc(BYTES);
    if (isOurs && size === BYTES && readSync(fd, bytes) === BYTES) return bytes;
    throw new Error("somebody else's");
  } finally {
    closeSync(fd);
  }
}

/** Undefined when another process has been faster. */
function write(file: string): Uint8Array | undefined {
  const bytes = randomBytes(BYTES);
  const temporary = `${file}.${randomUUID()}`;
  const fd = openSync(temporary, "wx", 0o600);
  try {
    writeSync(fd, bytes);
    // A power cut would leave zeros.
    fsyncSync(fd);
    linkSync(temporary, file);
    return bytes;
  } catch (error) {
    if (systemCode(error) === "EEXIST") return undefined;
    throw error;
  } finally {
    closeSync(fd);
    rmSync(temporary, { force: true });
  }
}

/** Signing keys as files. */
import { closeSync, fsyncSync, openSync, readFileSync, rmSync, statSync, writeSync } from "node:fs";
import { messageOf, NixcacheError, systemCode } from "../errors.ts";
import {
  formatPublicKey,
  formatSecretKey,
  generateSecretKey,
  KEY_SIZE,
  parseSecretKey,
  publicKeyOf,
  type SecretKey,
} from "./signing-key.ts";

/** A file, or the text itself and the name of the variable that held it. */
export type KeySource = { readonly file: string } | { readonly text: string; readonly from: string };

/** What ends in a colon and as much base64 as a key has is the key itself, given in place of its file. */
const KEY_TEXT = /:[A-Za-z0-9+/]{40,}={0,2}\s*$/;

/** More than any key file has, in bytes. */
const MAX_KEY_BYTES = 64 * 1024;

/**
 * Makes a key pair and writes both files; neither may exist. Returns the public key.
 * @throws `key`, `filesystem`; no file is left behind then.
 */
export function createKeyPair(name: string, secretFile: string, publicFile: string): string {
  const key = generateSecretKey(name, crypto.getRandomValues(new Uint8Array(KEY_SIZE)));
  const publicKey = formatPublicKey(publicKeyOf(key));
  writeNew(secretFile, formatSecretKey(key), 0o600);
  try {
    writeNew(publicFile, publicKey, 0o644);
  } catch (error) {
    rmSync(secretFile, { force: true });
    throw error;
  }
  return publicKey;
}

/** @throws `key` when the file cannot be read or is no secret key; never with what it holds. */
export function readSigningKey(source: KeySource): SecretKey {
  if ("text" in source) return parseSecretKey(source.text, source.from);
  let text: string;
  try {
    const bytes = readFileSync(source.file);
    if (bytes.length > MAX_KEY_BYTES) throw new Error(`it has ${bytes.length} bytes`);
    text = bytes.toString("utf8");
  } catch (cause) {
    if (KEY_TEXT.test(source.file)) {
      // Neither the message nor the system's own error, which names the file, may show it.
      throw new NixcacheError(
        "key",
        "cannot read the signing key: got a key, expected the name of its file",
        {
          hint: "Write the key to a file of its own, or put it into NIX_SIGNING_KEY.",
        },
      );
    }
    throw new NixcacheError("key", `cannot read the signing key ${source.file}: ${messageOf(cause)}`, {
      hint: "Make one with: nixcache keygen NAME",
      cause,
    });
  }
  return parseSecretKey(text, source.file);
}

/** What to say of a key that others of this machine can read; undefined where they cannot, or nothing is known. */
export function keyFileWarning(source: KeySource): string | undefined {
  if ("text" in source) return undefined;
  const mode = statSync(source.file, { throwIfNoEntry: false })?.mode ?? 0;
  if ((mode & 0o007) === 0) return undefined;
  return `every user of this machine can read the signing key ${source.file}, or replace it: run chmod 600 ${source.file}, and make a new key if others had access`;
}

function writeNew(file: string, text: string, mode: number): void {
  let fd: number | undefined;
  try {
    fd = openSync(file, "wx", mode);
    writeSync(fd, text);
    fsyncSync(fd);
  } catch (cause) {
    if (systemCode(cause) === "EEXIST") {
      throw new NixcacheError("key", `${file} exists already and is not overwritten`, {
        hint: "Name other files, or move the old key away if nothing is signed with it.",
        cause,
      });
    }
    if (fd !== undefined) rmSync(file, { force: true });
    throw new NixcacheError("filesystem", `cannot write ${file}: ${messageOf(cause)}`, { cause });
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

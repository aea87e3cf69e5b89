/**
 * Store paths: `/nix/store/<32 base32 digits>-<name>`. What follows the store directory is the *base name*,
 * the form in which narinfos list references.
 * https://nix.dev/manual/nix/latest/store/store-path
 *
 * Odd: a leading period. Nix up to 2.3 refused it, 2.4 to 2.19 took any name with one, 2.20 on refuse only
 * `.`, `..`, `.-…` and `..-…`. Such paths exist in caches and no name is a path component by itself, so all
 * of them are accepted here.
 */
import { NixcacheError } from "../errors.ts";
import { isBase32 } from "./base32.ts";

/** The store directory of every public cache. */
export const STORE_DIR = "/nix/store";

/** Base32 digits of a store hash, 20 bytes. */
export const STORE_HASH_LENGTH = 32;

/** The longest name, in characters: 255 of a file name, less the hash, the dash and room for `.drv.chroot`. */
export const MAX_STORE_NAME_LENGTH = 211;

export interface StorePath {
  /** `/nix/store/<hash>-<name>` */
  readonly path: string;
  /** `<hash>-<name>` */
  readonly baseName: string;
  /** 32 base32 digits. */
  readonly hash: string;
  readonly name: string;
}

const NAME_CHARACTERS = new Uint8Array(128);
for (const character of "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+-._?=") {
  NAME_CHARACTERS[character.charCodeAt(0)] = 1;
}

/**
 * Takes a store path apart.
 * @throws `nix-store` when it is not directly in `storeDir` or its base name is none.
 */
export function parseStorePath(text: string, storeDir: string = STORE_DIR): StorePath {
  if (!text.startsWith(storeDir) || text[storeDir.length] !== "/") {
    throw refuse(text, `a path ${storeDir}/<32 characters>-<name>`);
  }
  const baseName = text.slice(storeDir.length + 1);
  const problem = baseNameProblem(baseName);
  if (problem !== undefined) throw refuse(text, problem);
  return split(baseName, text);
}

/**
 * Takes a base name, `<hash>-<name>`, apart; `path` is the one in `storeDir`.
 * @throws `nix-store`
 */
export function parseBaseName(text: string, storeDir: string = STORE_DIR): StorePath {
  const problem = baseNameProblem(text);
  if (problem !== undefined) throw refuse(text, problem);
  return split(text, `${storeDir}/${text}`);
}

/**
 * The 32 characters of a store path, in whatever store directory, or of a base name.
 * @throws `nix-store`
 */
export function storeHashOf(path: string): string {
  const start = path.lastIndexOf("/") + 1;
  const baseName = start === 0 ? path : path.slice(start);
  const problem = baseNameProblem(baseName);
  if (problem !== undefined) throw refuse(path, problem);
  return baseName.slice(0, STORE_HASH_LENGTH);
}

export function isStoreHash(text: string): boolean {
  return text.length === STORE_HASH_LENGTH && isBase32(text, 0, STORE_HASH_LENGTH);
}

export function isBaseName(text: string): boolean {
  return baseNameProblem(text) === undefined;
}

/** What a base name should have been, or undefined when it is one. Allocates nothing for a good one. */
function baseNameProblem(text: string): string | undefined {
  if (!isBase32(text, 0, STORE_HASH_LENGTH)) {
    return "32 characters of 0123456789abcdfghijklmnpqrsvwxyz at the start";
  }
  if (text[STORE_HASH_LENGTH] !== "-") return "a dash after the 32 characters of the hash";
  const nameLength = text.length - STORE_HASH_LENGTH - 1;
  if (nameLength < 1 || nameLength > MAX_STORE_NAME_LENGTH) {
    return `a name of 1 to ${MAX_STORE_NAME_LENGTH} characters after the dash`;
  }
  for (let index = STORE_HASH_LENGTH + 1; index < text.length; index++) {
    if (NAME_CHARACTERS[text.charCodeAt(index)] !== 1) return "only letters, digits and +-._?= in the name";
  }
  return undefined;
}

function split(baseName: string, path: string): StorePath {
  const hash = baseName.slice(0, STORE_HASH_LENGTH);
  return { path, baseName, hash, name: baseName.slice(STORE_HASH_LENGTH + 1) };
}

function refuse(text: string, expected: string): NixcacheError {
  const shown = text.length > 300 ? `${text.slice(0, 300)}…` : text;
  return new NixcacheError("nix-store", `store path: got ${JSON.stringify(shown)}, expected ${expected}`);
}

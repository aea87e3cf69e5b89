/**
 * Content addresses: the `CA` field of a narinfo and `ca` in the Nix store.
 *
 *   text:sha256:<base32>            a file written by the evaluator, such as a derivation
 *   fixed:<algorithm>:<base32>      a flat file
 *   fixed:r:<algorithm>:<base32>    a file tree, hashed as its NAR
 *   fixed:git:<algorithm>:<base32>  a file tree, hashed as a git object
 *
 * The store path of such an object follows from its name, content address and references, so it needs no
 * signature. https://nix.dev/manual/nix/latest/protocols/store-path
 */
import { NixcacheError } from "../errors.ts";
import { encodeBase32 } from "./base32.ts";
import { formatHash, type Hash, parseHash, sha256 } from "./hash.ts";
import { parseBaseName, parseStorePath, STORE_DIR } from "./store-path.ts";

export interface ContentAddress {
  readonly method: "text" | "flat" | "nar" | "git";
  readonly hash: Hash;
}

const PREFIXES: Readonly<Record<ContentAddress["method"], string>> = {
  text: "text:",
  git: "fixed:git:",
  nar: "fixed:r:",
  flat: "fixed:",
};

/** @throws `corrupt`, naming `where`, for an unknown prefix (Nix stops at it too) or a malformed hash. */
export function parseContentAddress(text: string, where: string): ContentAddress {
  const method = methodOf(text);
  if (method === undefined) {
    const shown = text.length > 150 ? `${text.slice(0, 150)}…` : text;
    throw new NixcacheError(
      "corrupt",
      `${where}: got ${JSON.stringify(shown)}, expected a content address text:… or fixed:…`,
    );
  }
  const hash = parseHash(text.slice(PREFIXES[method].length), where);
  if (method === "text" && hash.algorithm !== "sha256") {
    throw new NixcacheError(
      "corrupt",
      `${where}: got a text content address of ${hash.algorithm}, expected sha256`,
    );
  }
  return { method, hash };
}

/** As Nix writes it: the hash in base32. */
export function formatContentAddress(address: ContentAddress): string {
  return PREFIXES[address.method] + formatHash(address.hash, "base32");
}

/** What an object refers to. Its own path cannot be listed, since it is what is to be computed. */
export interface ContentReferences {
  /** Base names without the object itself, in any order. */
  readonly others: readonly string[];
  /** Whether it refers to itself. */
  readonly self: boolean;
}

/**
 * The store path that Nix gives to an object with this name and content address.
 * @throws `nix-store` when this kind of address cannot have such references, or name or references are none.
 */
export function contentAddressStorePath(
  name: string,
  address: ContentAddress,
  references: ContentReferences = { others: [], self: false },
  storeDir: string = STORE_DIR,
): string {
  const { method, hash } = address;
  if (method === "text") {
    if (references.self) throw refuse(name, "a text object cannot refer to itself");
    return makeStorePath(typeOf("text", references, storeDir), hash, name, storeDir);
  }
  if (method === "nar" && hash.algorithm === "sha256") {
    return makeStorePath(typeOf("source", references, storeDir), hash, name, storeDir);
  }
  if (references.self || references.others.length > 0) {
    throw refuse(name, "only text objects and file trees hashed with sha256 can have references");
  }
  const prefix = PREFIXES[method].slice("fixed:".length);
  const inner = sha256(`fixed:out:${prefix}${formatHash(hash, "base16")}:`);
  return makeStorePath("output:out", { algorithm: "sha256", bytes: inner }, name, storeDir);
}

/**
 * Whether the path of an object follows from its content address, so that it can be trusted unsigned once
 * its bytes have been checked against that address.
 */
export function isContentAddressed(
  info: {
    readonly storePath: string;
    readonly references: readonly string[];
    readonly ca?: string | undefined;
  },
  storeDir: string = STORE_DIR,
): boolean {
  if (info.ca === undefined) return false;
  const own = parseStorePath(info.storePath, storeDir);
  const others = info.references.filter((reference) => reference !== own.baseName);
  const self = others.length < info.references.length;
  try {
    const address = parseContentAddress(info.ca, own.path);
    return contentAddressStorePath(own.name, address, { others, self }, storeDir) === own.path;
  } catch (error) {
    if (error instanceof NixcacheError) return false;
    throw error;
  }
}

function methodOf(text: string): ContentAddress["method"] | undefined {
  if (text.startsWith("text:")) return "text";
  if (text.startsWith("fixed:r:")) return "nar";
  if (text.startsWith("fixed:git:")) return "git";
  return text.startsWith("fixed:") ? "flat" : undefined;
}

/** The type of a store path carries its references: `source:<path>:<path>:self`. */
function typeOf(type: string, references: ContentReferences, storeDir: string): string {
  const paths = [...new Set(references.others)].sort().map((base) => parseBaseName(base, storeDir).path);
  return [type, ...paths, ...(references.self ? ["self"] : [])].join(":");
}

function makeStorePath(type: string, hash: Hash, name: string, storeDir: string): string {
  const digest = sha256(`${type}:${formatHash(hash, "base16")}:${storeDir}:${name}`);
  // Nix folds the 32 bytes into the 20 of a store hash by exclusive or.
  const folded = new Uint8Array(20);
  for (const [index, byte] of digest.entries()) folded[index % 20] = (folded[index % 20] ?? 0) ^ byte;
  return parseBaseName(`${encodeBase32(folded)}-${name}`, storeDir).path;
}

function refuse(name: string, why: string): NixcacheError {
  return new NixcacheError("nix-store", `store path of ${JSON.stringify(name)}: ${why}`);
}

/**
 * Nix's ed25519 signing keys.
 *
 *   secret  <name>:<base64 of the 32-byte seed and the 32-byte public key>
 *   public  <name>:<base64 of the 32-byte public key>
 *
 * Nix writes no newline after either; editors and `echo` do. No error ever holds what was in a key file.
 * https://nix.dev/manual/nix/latest/command-ref/nix-store/generate-binary-cache-key
 */
import { createPrivateKey, createPublicKey, type KeyObject, sign } from "node:crypto";
import { NixcacheError, preview, printable } from "../errors.ts";
import { decodeBase64 } from "./hash.ts";

export interface PublicKey {
  readonly name: string;
  /** 32 bytes. */
  readonly bytes: Uint8Array;
}

/** PKCS #8 of an ed25519 seed, all but the seed. RFC 8410, 7 */
const PKCS8_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");

/** A class for the sake of its private field: printing, inspecting or serialising the key shows no seed. */
export class SecretKey {
  readonly name: string;
  /** 32 bytes, of this seed. */
  readonly publicBytes: Uint8Array;
  readonly #seed: Uint8Array;
  readonly #key: KeyObject;

  constructor(name: string, seed: Uint8Array) {
    this.name = name;
    this.#seed = seed;
    const key = Buffer.concat([PKCS8_PREFIX, seed]);
    this.#key = createPrivateKey({ key, format: "der", type: "pkcs8" });
    const spki = createPublicKey(this.#key).export({ format: "der", type: "spki" });
    // The key stands at the end. RFC 8410, 4
    this.publicBytes = new Uint8Array(spki.subarray(-KEY_SIZE));
  }

  /** The signature of `message`, 64 bytes: a publish signs thousands, which takes 20 times as long in JavaScript. */
  sign(message: Uint8Array): Uint8Array {
    return new Uint8Array(sign(null, message, this.#key));
  }

  /** 32 bytes. */
  get seed(): Uint8Array {
    return this.#seed;
  }
}

/** Bytes of the seed and of the public key alike (RFC 8032, 5.1.5). */
export const KEY_SIZE = 32;

/**
 * A key name ends at the first colon, and `trusted-public-keys` and the store's list of signatures are
 * separated by white space.
 * @throws `key` for a name that is empty or holds a colon, white space or a control character.
 */
export function checkKeyName(name: string): void {
  if (name === "" || /[\s\p{Cc}:]/u.test(name)) {
    // Behind a colon may be the key itself.
    const colon = name.indexOf(":");
    const shown = colon < 0 ? preview(name) : `${preview(name.slice(0, colon))} and a colon`;
    throw new NixcacheError("key", `key name: got ${shown}, expected one without colons and white space`, {
      hint: "Name the key after the cache, such as example.org-1.",
    });
  }
}

/** A key made of 32 random bytes that the caller draws. @throws `key` */
export function generateSecretKey(name: string, randomSeed: Uint8Array): SecretKey {
  checkKeyName(name);
  if (randomSeed.length !== KEY_SIZE) {
    throw new NixcacheError(
      "key",
      `key ${name}: got a seed of ${randomSeed.length} bytes, expected ${KEY_SIZE}`,
    );
  }
  return new SecretKey(name, randomSeed.slice());
}

export function publicKeyOf(secret: SecretKey): PublicKey {
  return { name: secret.name, bytes: secret.publicBytes };
}

/**
 * The key in a secret key file; white space at the end is ignored.
 * @throws `key` when it is none, or when its public half does not belong to its seed.
 */
export function parseSecretKey(text: string, where = "secret key"): SecretKey {
  const { name, bytes } = parseKey(text, where, KEY_SIZE * 2);
  const key = new SecretKey(name, bytes.slice(0, KEY_SIZE));
  if (Buffer.compare(key.publicBytes, bytes.subarray(KEY_SIZE)) !== 0) {
    throw new NixcacheError("key", `${where}: its second half is not the public key of its first half`, {
      hint: "The file is damaged: make a new key with `nixcache keygen`, or take it from a backup.",
    });
  }
  return key;
}

/** As Nix writes it, without a newline. The result is a secret. */
export function formatSecretKey(key: SecretKey): string {
  return `${key.name}:${Buffer.concat([key.seed, key.publicBytes]).toString("base64")}`;
}

/** The key in a public key file or in `trusted-public-keys`. @throws `key` */
export function parsePublicKey(text: string, where = "public key"): PublicKey {
  return parseKey(text, where, KEY_SIZE);
}

/** The keys among texts that strangers wrote; what is none is passed over. */
export function publicKeysAmong(texts: Iterable<unknown>): PublicKey[] {
  return [...texts].flatMap((text) => {
    try {
      return typeof text === "string" ? [parsePublicKey(text)] : [];
    } catch (error) {
      if (error instanceof NixcacheError) return [];
      throw error;
    }
  });
}

/** Whether a text is exactly what `formatPublicKey` makes, and nothing but visible characters. */
export function isPublicKey(text: string): boolean {
  try {
    return formatPublicKey(parsePublicKey(text)) === text && printable(text) === text;
  } catch {
    return false;
  }
}

export function formatPublicKey(key: PublicKey): string {
  return `${key.name}:${key.bytes.toBase64()}`;
}

function parseKey(text: string, where: string, size: number): { name: string; bytes: Uint8Array } {
  const trimmed = text.trimEnd();
  const colon = trimmed.indexOf(":");
  // Without a colon the whole text may be a bare secret, so not even a piece of it is shown.
  if (colon < 0) throw new NixcacheError("key", `${where}: got no colon, expected <name>:<base64>`);
  const name = trimmed.slice(0, colon);
  if (name === "" || /[\s\p{Cc}]/u.test(name)) {
    throw new NixcacheError("key", `${where}: expected a name without white space before the colon`);
  }
  const bytes = decodeBase64(trimmed.slice(colon + 1));
  if (bytes === undefined) throw new NixcacheError("key", `${where}: expected base64 after the colon`);
  if (bytes.length === size) return { name, bytes };
  const kind =
    bytes.length === KEY_SIZE ? " (a public key?)" : bytes.length === KEY_SIZE * 2 ? " (a secret key?)" : "";
  throw new NixcacheError("key", `${where}: got ${bytes.length} bytes${kind}, expected ${size}`);
}

/**
 * Signatures of store paths: ed25519 over a fingerprint of what a client checks, `Sig: <key name>:<base64>`.
 *
 * The fingerprint covers path, NAR hash, NAR size and references, and nothing of where or how the NAR is
 * stored: a signature outlives recompression and mirroring.
 * https://nix.dev/manual/nix/latest/protocols/binary-cache
 */
import { NixcacheError } from "../errors.ts";
import { isGoodSignature } from "./ed25519.ts";
import { decodeBase64 } from "./hash.ts";
import { ascending, type NarInfo } from "./narinfo.ts";
import type { PublicKey, SecretKey } from "./signing-key.ts";
import { STORE_DIR } from "./store-path.ts";

/** Bytes of an ed25519 signature. */
export const SIGNATURE_SIZE = 64;

export interface Signature {
  /** The name of the key that made it. */
  readonly name: string;
  /** 64 bytes. */
  readonly bytes: Uint8Array;
}

/** What a signature covers of a narinfo. */
export type SignedFields = Readonly<Pick<NarInfo, "storePath" | "narHash" | "narSize">> & {
  readonly references: readonly string[];
};

/** `1;<path>;<NAR hash>;<NAR size>;<full paths of the references, ascending, comma-joined>` */
export function fingerprint(info: SignedFields, storeDir: string = STORE_DIR): string {
  const references = ascending(info.references).map((reference) => `${storeDir}/${reference}`);
  return `1;${info.storePath};${info.narHash};${info.narSize};${references.join(",")}`;
}

/** The value of the Sig line that `key` gives to this path. */
export function signNarInfo(info: SignedFields, key: SecretKey, storeDir: string = STORE_DIR): string {
  const message = new TextEncoder().encode(fingerprint(info, storeDir));
  return formatSignature({ name: key.name, bytes: key.sign(message) });
}

/** Whether one of the keys vouches for this path. */
export function verifyNarInfo(
  info: SignedFields & { readonly sigs: readonly string[] },
  publicKeys: readonly PublicKey[],
  storeDir: string = STORE_DIR,
): boolean {
  return verifyingKey(info, publicKeys, storeDir) !== undefined;
}

/**
 * The first key by which a signature of this path is good, or undefined. Signatures by other names are
 * ignored. Of keys with the same name only the first counts, as in Nix. Nix gives up on a path when a
 * trusted name stands before something that is no signature, even beside a good one: so that is undefined.
 */
export function verifyingKey(
  info: SignedFields & { readonly sigs: readonly string[] },
  publicKeys: readonly PublicKey[],
  storeDir: string = STORE_DIR,
): PublicKey | undefined {
  const candidates: { key: PublicKey; bytes: Uint8Array }[] = [];
  for (const sig of info.sigs) {
    const name = signerOf(sig);
    const key = publicKeys.find((candidate) => candidate.name === name);
    if (key === undefined) continue;
    const bytes = decodeBase64(sig.slice(name.length + 1));
    if (bytes?.length !== SIGNATURE_SIZE) return undefined;
    candidates.push({ key, bytes });
  }
  if (candidates.length === 0) return undefined;
  const message = new TextEncoder().encode(fingerprint(info, storeDir));
  return candidates.find(({ key, bytes }) => isGoodSignature(bytes, message, key.bytes))?.key;
}

/** The name of the key that a signature says it is by; empty where it says none. */
export function signerOf(text: string): string {
  return text.slice(0, Math.max(0, text.indexOf(":")));
}

/** Whether it has the shape of a signature, whatever it is good for. */
export function isSignature(text: string): boolean {
  const name = signerOf(text);
  return name !== "" && decodeBase64(text.slice(name.length + 1))?.length === SIGNATURE_SIZE;
}

/** @throws `corrupt`, naming `where`. */
export function parseSignature(text: string, where = "signature"): Signature {
  const colon = text.indexOf(":");
  const bytes = colon < 1 ? undefined : decodeBase64(text.slice(colon + 1));
  if (bytes?.length === SIGNATURE_SIZE) return { name: text.slice(0, colon), bytes };
  const shown = text.length > 150 ? `${text.slice(0, 150)}…` : text;
  throw new NixcacheError(
    "corrupt",
    `${where}: got ${JSON.stringify(shown)}, expected <key name>:<base64 of ${SIGNATURE_SIZE} bytes>`,
  );
}

export function formatSignature(signature: Signature): string {
  return `${signature.name}:${signature.bytes.toBase64()}`;
}

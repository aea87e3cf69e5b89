/**
 * OCI digests: `sha256:` and 64 lower-case hexadecimal characters.
 * https://github.com/opencontainers/image-spec/blob/v1.1.0/descriptor.md#digests
 *
 * Other algorithms are registered (sha512), but no registry needs them and we never write them.
 */
import { NixcacheError, preview } from "../errors.ts";

export type Digest = `sha256:${string}`;

const DIGEST = /^sha256:[0-9a-f]{64}$/;

export function isDigest(text: unknown): text is Digest {
  return typeof text === "string" && DIGEST.test(text);
}

/** @throws `corrupt`, naming `where`, when `text` is not a SHA-256 digest. */
export function parseDigest(text: unknown, where: string): Digest {
  if (isDigest(text)) return text;
  throw new NixcacheError("corrupt", `${where}: got ${preview(text)}, expected a digest sha256:<64 hex>`);
}

/** The 64 hexadecimal characters. */
export function digestHex(digest: Digest): string {
  return digest.slice("sha256:".length);
}

export function digestOf(bytes: Uint8Array | string): Digest {
  return `sha256:${new Bun.CryptoHasher("sha256").update(bytes).digest("hex")}`;
}

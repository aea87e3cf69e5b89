/**
 * Hashes as Nix writes them: `sha256:<base32>`, `sha256:<base16>`, `sha256:<base64>` and SRI
 * `sha256-<base64>`. Which of the first three it is follows from the length alone, as in Nix.
 * https://nix.dev/manual/nix/latest/protocols/json/hash
 */
import { NixcacheError } from "../errors.ts";
import { base32Length, decodeBase32, encodeBase32, isBase32 } from "./base32.ts";

export type HashAlgorithm = "md5" | "sha1" | "sha256" | "sha512" | "blake3";

/** Sizes of the digests in bytes. */
export const HASH_SIZES: Readonly<Record<HashAlgorithm, number>> = {
  md5: 16,
  sha1: 20,
  sha256: 32,
  sha512: 64,
  blake3: 32,
};

export interface Hash {
  readonly algorithm: HashAlgorithm;
  /** As many as HASH_SIZES says. */
  readonly bytes: Uint8Array;
}

export type HashEncoding = "base32" | "base16" | "base64" | "sri";

const EXPECTED = "a hash <algorithm>:<base32, base16 or base64> or <algorithm>-<base64>";

/**
 * The hash in `text`, in any of Nix's spellings.
 * @throws `corrupt`, naming `where`.
 */
export function parseHash(text: string, where: string): Hash {
  const separator = text.search(/[:-]/);
  const algorithm = separator < 0 ? "" : text.slice(0, separator);
  if (!isHashAlgorithm(algorithm)) throw refuse(text, where, EXPECTED);
  const size = HASH_SIZES[algorithm];
  const digits = text.slice(separator + 1);
  const base64 = text[separator] === "-";
  const bytes = base64 ? decodeBase64(digits) : decodeDigits(digits, size);
  if (bytes?.length !== size) {
    const spelled = base64 ? "of base64" : "of base32, base16 or base64";
    throw refuse(text, where, `the ${size} bytes of a ${algorithm} hash in the digits ${spelled}`);
  }
  return { algorithm, bytes };
}

export function formatHash(hash: Hash, encoding: HashEncoding): string {
  switch (encoding) {
    case "base32":
      return `${hash.algorithm}:${encodeBase32(hash.bytes)}`;
    case "base16":
      return `${hash.algorithm}:${hash.bytes.toHex()}`;
    case "base64":
      return `${hash.algorithm}:${hash.bytes.toBase64()}`;
    case "sri":
      return `${hash.algorithm}-${hash.bytes.toBase64()}`;
  }
}

/** The length of `sha256:<base32>`. */
const CANONICAL_LENGTH = "sha256:".length + 52;

/** Whether `text` is `sha256:` and base32 exactly: the one spelling that is written into narinfos. */
export function isCanonicalSha256(text: string): boolean {
  if (text.length !== CANONICAL_LENGTH || !text.startsWith("sha256:")) return false;
  // 52 digits hold 260 bits: the first digit may only use its lowest bit.
  const first = text.charCodeAt(7);
  return (first === 0x30 || first === 0x31) && isBase32(text, 8, 51);
}

/**
 * The SHA-256 hash in `text`, in any spelling, as `sha256:<base32>`.
 * @throws `corrupt`, naming `where`, for no hash and for one of another algorithm.
 */
export function canonicalSha256(text: string, where: string): string {
  if (isCanonicalSha256(text)) return text;
  const hash = parseHash(text, where);
  if (hash.algorithm !== "sha256") throw refuse(text, where, "a sha256 hash");
  return formatHash(hash, "base32");
}

export interface Hasher {
  update(bytes: Uint8Array): void;
  /** The digest; the hasher is spent afterwards. */
  digest(): Uint8Array;
}

/** A hasher. Asynchronous because BLAKE3, which Bun lacks, is WebAssembly that is loaded on first use. */
export async function createHasher(algorithm: HashAlgorithm): Promise<Hasher> {
  if (algorithm === "blake3") {
    const { createBLAKE3 } = await import("hash-wasm");
    const blake3 = await createBLAKE3();
    return { update: (bytes) => void blake3.update(bytes), digest: () => blake3.digest("binary") };
  }
  const hasher = new Bun.CryptoHasher(algorithm);
  return {
    update: (bytes) => void hasher.update(bytes),
    digest: () => new Uint8Array(hasher.digest()),
  };
}

/** The SHA-256 digest, 32 bytes. Text is hashed as UTF-8. */
export function sha256(bytes: Uint8Array | string): Uint8Array {
  return new Uint8Array(new Bun.CryptoHasher("sha256").update(bytes).digest());
}

export function isHashAlgorithm(text: string): text is HashAlgorithm {
  return Object.hasOwn(HASH_SIZES, text);
}

/** Bytes of base64 with its padding; undefined when it is none or not the one spelling of its bytes. */
export function decodeBase64(text: string): Uint8Array | undefined {
  try {
    const bytes = Uint8Array.fromBase64(text, { lastChunkHandling: "strict" });
    // fromBase64 skips white space, which has no place in a hash, a key or a signature.
    return text.length === Math.ceil(bytes.length / 3) * 4 ? bytes : undefined;
  } catch {
    return undefined;
  }
}

function decodeDigits(digits: string, size: number): Uint8Array | undefined {
  try {
    if (digits.length === size * 2) return Uint8Array.fromHex(digits);
    if (digits.length === base32Length(size)) return decodeBase32(digits);
  } catch {
    return undefined;
  }
  return decodeBase64(digits);
}

function refuse(text: string, where: string, expected: string): NixcacheError {
  const shown = text.length > 150 ? `${text.slice(0, 150)}…` : text;
  return new NixcacheError("corrupt", `${where}: got ${JSON.stringify(shown)}, expected ${expected}`);
}

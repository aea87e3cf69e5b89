/**
 * Signatures that libraries disagree about: points of small order, in their odd spellings, and beside a real key. Made
 * of the group itself, as no library signs so.
 */
import { ED25519_TORSION_SUBGROUP, ed25519 } from "@noble/curves/ed25519.js";

const { Point } = ed25519;
const ORDER = Point.Fn.ORDER;
const PRIME = 2n ** 255n - 19n;
/** One of order 8, one of order 2, and the neutral one. */
const EIGHT = torsion((point) => !point.multiplyUnsafe(4n).is0());
const TWO = torsion((point) => !point.is0() && point.double().is0());
const ZERO = Point.ZERO;

export interface OddSignature {
  readonly what: string;
  readonly publicKey: Uint8Array;
  readonly signature: Uint8Array;
}

/** Secret scalars. */
const [A, R] = [0x1234567890abcdefn, 0xfedcba0987654321n];

/** All of them for one message. */
export function oddSignatures(message: Uint8Array): readonly OddSignature[] {
  /** @param key beside the real key, @param nonce beside the real R; without a scalar they stand alone. */
  const sign = (what: string, { a = A, r = R, key = ZERO, nonce = ZERO, more = 0n, spell = spelled }) => {
    const publicKey = spell(point(a).add(key));
    const first = spell(point(r).add(nonce));
    const s = ((r + hash(first, publicKey, message) * a) % ORDER) + more;
    return { what, publicKey, signature: new Uint8Array([...first, ...bytesOf(s)]) };
  };
  return [
    sign("as it should be", {}),
    sign("S of another message", { more: 1n }),
    sign("S not reduced", { more: ORDER }),
    sign("a neutral R", { r: 0n }),
    sign("an R of order 2", { r: 0n, nonce: TWO }),
    sign("an R of order 8", { r: 0n, nonce: EIGHT }),
    sign("an R with order 8 in it", { nonce: EIGHT }),
    sign("a neutral key", { a: 0n }),
    sign("a key of order 2", { a: 0n, key: TWO }),
    sign("a key of order 8", { a: 0n, key: EIGHT }),
    sign("a neutral key and R", { a: 0n, r: 0n }),
    sign("a neutral key and R, not canonical", { a: 0n, r: 0n, spell: notCanonical }),
    sign("a neutral key, not canonical", { a: 0n, spell: notCanonical }),
    sign("a neutral R, not canonical", { r: 0n, spell: notCanonical }),
    sign("a key of order 4, not canonical", { a: 0n, key: EIGHT.double(), spell: notCanonical }),
    sign("a key with order 2 in it", { key: TWO }),
    sign("a key with order 8 in it", { key: EIGHT }),
    sign("a key and an R with order 8 in them", { key: EIGHT, nonce: EIGHT }),
  ];
}

function torsion(is: (point: InstanceType<typeof Point>) => boolean): InstanceType<typeof Point> {
  return ED25519_TORSION_SUBGROUP.map((hex) => Point.fromHex(hex)).find(is) as InstanceType<typeof Point>;
}

function point(scalar: bigint) {
  return scalar === 0n ? ZERO : Point.BASE.multiply(scalar);
}

function spelled(of: InstanceType<typeof Point>): Uint8Array {
  return of.toBytes();
}

/** With the prime added to y, where that fits: only for those with a y below 19. */
function notCanonical(of: InstanceType<typeof Point>): Uint8Array {
  const number = numberOf(of.toBytes());
  const [sign, y] = [number >> 255n, number & (2n ** 255n - 1n)];
  return y < 19n ? bytesOf((sign << 255n) | (y + PRIME)) : of.toBytes();
}

function hash(first: Uint8Array, publicKey: Uint8Array, message: Uint8Array): bigint {
  const hasher = new Bun.CryptoHasher("sha512").update(first).update(publicKey).update(message);
  return numberOf(new Uint8Array(hasher.digest())) % ORDER;
}

function numberOf(bytes: Uint8Array): bigint {
  return BigInt(`0x${bytes.toReversed().toHex()}`);
}

function bytesOf(number: bigint): Uint8Array {
  return Uint8Array.fromHex(number.toString(16).padStart(64, "0")).reverse();
}

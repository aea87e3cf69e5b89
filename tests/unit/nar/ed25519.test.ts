/** Which signatures count: those that libsodium takes, which Nix asks. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { isGoodSignature } from "../../../src/nar/ed25519.ts";
import { generateSecretKey } from "../../../src/nar/signing-key.ts";
import { type OddSignature, oddSignatures } from "../../support/odd-signatures.ts";
import { propertyParameters } from "../../support/seed.ts";

const isGood = (message: Uint8Array) => (odd: OddSignature) =>
  isGoodSignature(odd.signature, message, odd.publicKey);

describe("of odd signatures", () => {
  test("those are good that libsodium takes, of whatever message", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (message) => {
        const good = oddSignatures(message).filter(isGood(message));
        // Whether one with a key of mixed order fits depends on the message: with 1 of 2, and 1 of 8.
        const mixed = /^a key .*with order/;
        expect(good.map(({ what }) => what).filter((what) => !mixed.test(what))).toEqual(["as it should be"]);
      }),
      { ...propertyParameters(), numRuns: 25 },
    );
  });

  test("one with a key of mixed order is good where R comes out byte by byte", () => {
    const good = Array.from({ length: 64 }, (_, i) => {
      const message = new TextEncoder().encode(`message ${i}`);
      return oddSignatures(message)
        .filter(isGood(message))
        .map(({ what }) => what);
    });
    const times = (what: string) => good.filter((of) => of.includes(what)).length;
    // As libsodium 1.0.18 has it for these messages.
    expect([times("a key with order 2 in it"), times("a key with order 8 in it")]).toEqual([39, 8]);
    expect(times("a key and an R with order 8 in them")).toBe(7);
  });
});

test("a key is read once, and one that is none is no reason to throw", () => {
  const [message, key] = [new Uint8Array([1, 2, 3]), generateSecretKey("a", new Uint8Array(32).fill(5))];
  const signature = key.sign(message);
  for (let times = 0; times < 2; times++) {
    expect(isGoodSignature(signature, message, key.publicBytes)).toBe(true);
    expect(isGoodSignature(signature, new Uint8Array([1, 2]), key.publicBytes)).toBe(false);
    for (const bytes of [new Uint8Array(32).fill(255), new Uint8Array(31), new Uint8Array(0)])
      expect(isGoodSignature(signature, message, bytes)).toBe(false);
  }
});

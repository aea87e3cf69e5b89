/** Key texts: whatever is wrong with them, no piece of a secret is in what is printed. */
import { expect, test } from "bun:test";
import { inspect } from "node:util";
import fc from "fast-check";
import { NixcacheError } from "../../src/errors.ts";
import { readSigningKey } from "../../src/nar/key-file.ts";
import {
  checkKeyName,
  formatPublicKey,
  formatSecretKey,
  parsePublicKey,
  parseSecretKey,
} from "../../src/nar/signing-key.ts";
import { corpus, mutatedText } from "./mutate.ts";
import { expectMeant, fuzz, parameters } from "./property.ts";

const keys = mutatedText(corpus("key"));

/** Pieces of a key text that are long enough to be worth something, and are no words of ours. */
const PIECE = 8;

function leak(said: string, secret: string): string | undefined {
  for (let at = 0; at + PIECE <= secret.length; at++) {
    const piece = secret.slice(at, at + PIECE);
    if (/^[A-Za-z0-9+/=]{8}$/.test(piece) && said.includes(piece)) return piece;
  }
  return undefined;
}

test("a key, or an error without any of it", () => {
  const secret =
    Buffer.from(corpus("key")[1] ?? [])
      .toString()
      .split(":")[1] ?? "";
  expect(secret.length).toBeGreaterThan(80);
  const readers = [
    (text: string) => formatSecretKey(parseSecretKey(text)),
    (text: string) => formatPublicKey(parsePublicKey(text)),
    (text: string) => formatSecretKey(readSigningKey({ text, from: "NIX_SIGNING_KEY" })),
  ];
  fc.assert(
    fc.property(keys, fc.nat(readers.length - 1), (text, index) => {
      try {
        expect(readers[index]?.(text)).toBe(text.trimEnd());
      } catch (error) {
        expectMeant(error, ["key"]);
        if (error instanceof NixcacheError)
          expect(leak(inspect(error, { depth: 9 }), secret)).toBeUndefined();
      }
    }),
    parameters(3000),
  );
});

test("a key given in place of its file or of its name", () => {
  const secret = Buffer.from(corpus("key")[1] ?? []).toString();
  const tries = [() => readSigningKey({ file: secret }), () => checkKeyName(secret)];
  for (const attempt of tries) {
    try {
      attempt();
      throw new Error("was taken");
    } catch (error) {
      expectMeant(error, ["key"]);
      expect(leak(inspect(error, { depth: 9 }), secret.split(":")[1] ?? "")).toBeUndefined();
    }
  }
});

test("key name", () => {
  fuzz(fc.oneof(keys, fc.string({ unit: "binary" })), 1000, ["key"], checkKeyName);
});

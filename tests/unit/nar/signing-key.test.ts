import { describe, expect, test } from "bun:test";
import { inspect } from "node:util";
import fc from "fast-check";
import {
  checkKeyName,
  formatPublicKey,
  formatSecretKey,
  generateSecretKey,
  parsePublicKey,
  parseSecretKey,
  publicKeyOf,
} from "../../../src/nar/signing-key.ts";
import { propertyParameters } from "../../support/seed.ts";
import { fixtureText, thrownBy } from "./fixtures.ts";

const SECRET = fixtureText("key.secret");
const PUBLIC = fixtureText("key.public");

describe("signing keys", () => {
  test("what Nix generated parses, belongs together and formats back", () => {
    const secret = parseSecretKey(SECRET);
    expect(secret.name).toBe("fixture.example.org-1");
    expect(formatSecretKey(secret)).toBe(SECRET);
    expect(parsePublicKey(PUBLIC)).toEqual(publicKeyOf(secret));
    expect(formatPublicKey(publicKeyOf(secret))).toBe(PUBLIC);
  });

  // RFC 8032, 7.1, test 1.
  test("the public key of a known seed", () => {
    const seed = Uint8Array.fromHex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    expect(publicKeyOf(generateSecretKey("rfc", seed)).bytes.toHex()).toBe(
      "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    );
  });

  test.each(["\n", "\r\n", " \n", "\n\n"])("white space %j at the end is ignored", (end) => {
    expect(formatSecretKey(parseSecretKey(SECRET + end))).toBe(SECRET);
    expect(formatPublicKey(parsePublicKey(PUBLIC + end))).toBe(PUBLIC);
  });

  test("the seed that was given is copied", () => {
    const seed = new Uint8Array(32).fill(7);
    const key = generateSecretKey("k", seed);
    seed.fill(0);
    expect(key.seed).toEqual(new Uint8Array(32).fill(7));
  });

  test("printing or serialising a key shows no seed", () => {
    const key = generateSecretKey("k", new Uint8Array(32).fill(0xab));
    for (const shown of [
      inspect(key, { depth: 9, showHidden: true }),
      Bun.inspect(key),
      JSON.stringify(key),
    ]) {
      expect(shown).toContain("publicBytes");
      expect(shown).not.toMatch(/\b171\b/);
    }
  });

  const base64 = SECRET.slice(SECRET.indexOf(":") + 1);
  const otherHalf = generateSecretKey("x", new Uint8Array(32).fill(1));
  const mixed = Buffer.concat([parseSecretKey(SECRET).seed, otherHalf.publicBytes]).toString("base64");

  test.each([
    ["nothing", "", "got no colon"],
    ["no name", `:${base64}`, "a name without white space"],
    ["no colon", base64, "got no colon"],
    ["a name with a blank", `a b:${base64}`, "a name without white space"],
    ["a line before", `# key\nk:${base64}`, "a name without white space"],
    ["two colons", `a:b:${base64}`, "expected base64"],
    ["a newline inside", `k:${base64.slice(0, 10)}\n${base64.slice(10)}`, "expected base64"],
    ["no padding", `k:${base64.replaceAll("=", "")}`, "expected base64"],
    ["one character less", `k:${base64.slice(0, -1)}`, "expected base64"],
    ["too few bytes", `k:${base64.slice(4)}`, "got 61 bytes, expected 64"],
    ["too many bytes", `k:AAAA${base64}`, "got 67 bytes, expected 64"],
    ["the public key", PUBLIC, "got 32 bytes (a public key?), expected 64"],
    ["halves of two keys", `k:${mixed}`, "its second half is not the public key"],
  ])("a secret key file with %s", (_, text, expected) => {
    const error = thrownBy(() => parseSecretKey(text, "/path/to/key"));
    expect(error.code).toBe("key");
    expect(error.message).toStartWith("/path/to/key: ");
    expect(error.message).toContain(expected);
    // Not even ten characters of what was in the file.
    for (let at = 0; at + 10 <= base64.length; at++) {
      expect(`${error.message} ${error.hint ?? ""} ${inspect(error)}`).not.toContain(
        base64.slice(at, at + 10),
      );
    }
  });

  test("the secret key where a public one belongs", () => {
    const error = thrownBy(() => parsePublicKey(SECRET));
    expect(error.message).toBe("public key: got 64 bytes (a secret key?), expected 32");
  });

  test.each(["", " ", "a b", "a:b", ":", "a\n", "\ta", "a\u00a0b", "a\0b"])(
    "key name %j is refused",
    (name) => {
      expect(thrownBy(() => checkKeyName(name)).code).toBe("key");
      expect(thrownBy(() => generateSecretKey(name, new Uint8Array(32))).code).toBe("key");
    },
  );

  test.each(["a", "cache.example.org-1", "ghcr.io/owner/repo-1", "ключ"])("key name %j is fine", (name) => {
    checkKeyName(name);
  });

  test.each([0, 31, 33, 64])("a seed of %d bytes is refused", (size) => {
    expect(thrownBy(() => generateSecretKey("k", new Uint8Array(size))).message).toContain(
      `a seed of ${size} bytes`,
    );
  });

  test("round trip of any key", () => {
    const seeds = fc.uint8Array({ minLength: 32, maxLength: 32 });
    fc.assert(
      fc.property(fc.stringMatching(/^[!-9;-~]{1,30}$/), seeds, (name, seed) => {
        const key = generateSecretKey(name, seed);
        const parsed = parseSecretKey(formatSecretKey(key));
        expect(parsed.name).toBe(name);
        expect(parsed.seed).toEqual(seed);
        expect(parsePublicKey(formatPublicKey(publicKeyOf(key)))).toEqual(publicKeyOf(parsed));
      }),
      { ...propertyParameters(), numRuns: 50 },
    );
  });
});

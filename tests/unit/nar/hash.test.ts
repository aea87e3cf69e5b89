import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  canonicalSha256,
  createHasher,
  formatHash,
  HASH_SIZES,
  type HashAlgorithm,
  type HashEncoding,
  isCanonicalSha256,
  isHashAlgorithm,
  parseHash,
  sha256,
} from "../../../src/nar/hash.ts";
import { propertyParameters } from "../../support/seed.ts";
import { fixtureText, thrownBy } from "./fixtures.ts";

const CONTENT = new TextEncoder().encode("hi\n");
const SHA256_BASE32 = "sha256:1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq";
const SHA256_BASE16 = "sha256:98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4";

describe("hashes as Nix prints them", () => {
  const rows = fixtureText("hashes.txt").trim().split("\n");
  test("the fixture has four algorithms in four encodings", () => expect(rows.length).toBe(16));

  test.each(rows.map((row) => row.split(" ") as [HashAlgorithm, HashEncoding, string]))(
    "%s %s",
    async (algorithm, encoding, digits) => {
      const hasher = await createHasher(algorithm);
      hasher.update(CONTENT.subarray(0, 1));
      hasher.update(CONTENT.subarray(1));
      const hash = { algorithm, bytes: hasher.digest() };
      const text = encoding === "sri" ? digits : `${algorithm}:${digits}`;
      expect(formatHash(hash, encoding)).toBe(text);
      expect(parseHash(text, "test")).toEqual(hash);
    },
  );

  test("BLAKE3, which Nix 2.8 lacks: the test vector of its specification for no input", async () => {
    const digest = (await createHasher("blake3")).digest();
    expect(digest.toHex()).toBe("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    expect(parseHash(formatHash({ algorithm: "blake3", bytes: digest }, "base32"), "test").bytes).toEqual(
      digest,
    );
  });

  test("sha256 of bytes and of text", () => {
    expect(sha256(CONTENT)).toEqual(parseHash(SHA256_BASE32, "test").bytes);
    expect(sha256("hi\n")).toEqual(sha256(CONTENT));
  });
});

describe("parseHash", () => {
  test("base16 in capitals", () => {
    const upper = `sha256:${SHA256_BASE16.slice(7).toUpperCase()}`;
    expect(parseHash(upper, "test")).toEqual(parseHash(SHA256_BASE16, "test"));
  });

  test.each([
    ["", "a hash <algorithm>:"],
    ["1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq", "a hash <algorithm>:"],
    ["sha3:00", "a hash <algorithm>:"],
    ["SHA256:00", "a hash <algorithm>:"],
    ["constructor:00", "a hash <algorithm>:"],
    ["sha256:", "32 bytes of a sha256 hash"],
    ["sha256:00", "32 bytes of a sha256 hash"],
    [SHA256_BASE32.slice(0, -1), "32 bytes of a sha256 hash"],
    [`${SHA256_BASE32}0`, "32 bytes of a sha256 hash"],
    [`${SHA256_BASE32}\n`, "32 bytes of a sha256 hash"],
    [`sha256:2${SHA256_BASE32.slice(8)}`, "32 bytes of a sha256 hash"],
    [`sha256:${"g".repeat(64)}`, "32 bytes of a sha256 hash"],
    [SHA256_BASE32.replace("sha256:", "sha512:"), "64 bytes of a sha512 hash"],
    [SHA256_BASE32.replace(":", "-"), "of base64"],
    ["sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q", "of base64"],
    ["sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+R=", "of base64"],
    ["sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/Vd xIxdP7EQe+Q=", "of base64"],
    ["sha256-mOpuTyFvL7S2n_-bOkSELDhobKaF8_VdxIxdP7EQe-Q=", "of base64"],
  ])("%j is refused", (text, expected) => {
    const error = thrownBy(() => parseHash(text, "field X"));
    expect(error.code).toBe("corrupt");
    expect(error.message).toStartWith(`field X: got ${JSON.stringify(text)}, expected `);
    expect(error.message).toContain(expected);
  });

  test("an endless text is not repeated in the error", () => {
    expect(thrownBy(() => parseHash(`sha256:${"0".repeat(100_000)}`, "x")).message.length).toBeLessThan(400);
  });
});

describe("canonicalSha256", () => {
  test.each([SHA256_BASE32, SHA256_BASE16, "sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q="])(
    "%s",
    (text) => {
      expect(canonicalSha256(text, "test")).toBe(SHA256_BASE32);
      expect(isCanonicalSha256(text)).toBe(text === SHA256_BASE32);
    },
  );

  test("another algorithm is refused", () => {
    const error = thrownBy(() => canonicalSha256("md5:764efa883dda1e11db47671c4a3bbd9e", "NarHash"));
    expect(error.message).toContain("expected a sha256 hash");
  });

  test("the quick check refuses what the decoder refuses", () => {
    for (const first of "23456789abcdfghijklmnpqrsvwxyz") {
      expect(isCanonicalSha256(`sha256:${first}${SHA256_BASE32.slice(8)}`)).toBe(false);
    }
    expect(isCanonicalSha256(SHA256_BASE32.replace("v", "e"))).toBe(false);
  });
});

test("round trip of any hash in any encoding", () => {
  const algorithms = Object.keys(HASH_SIZES).filter(isHashAlgorithm);
  const hash = fc.constantFrom(...algorithms).chain((algorithm) => {
    const size = HASH_SIZES[algorithm];
    return fc.uint8Array({ minLength: size, maxLength: size }).map((bytes) => ({ algorithm, bytes }));
  });
  const encoding = fc.constantFrom<HashEncoding>("base16", "base32", "base64", "sri");
  fc.assert(
    fc.property(hash, encoding, (value, form) => {
      expect(parseHash(formatHash(value, form), "test")).toEqual(value);
    }),
    propertyParameters(),
  );
});

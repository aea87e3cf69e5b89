/** Parsers of texts that strangers write: a value that is what it says, or a refusal that may be printed. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { parseTag } from "../../src/cache/tags.ts";
import { decodeBase32, encodeBase32 } from "../../src/nar/base32.ts";
import { formatContentAddress, parseContentAddress } from "../../src/nar/content-address.ts";
import { canonicalSha256, formatHash, parseHash } from "../../src/nar/hash.ts";
import { formatNarInfo, MAX_NARINFO_LENGTH, parseNarInfo } from "../../src/nar/narinfo.ts";
import { formatSignature, parseSignature, verifyingKey } from "../../src/nar/signature.ts";
import { parsePublicKey } from "../../src/nar/signing-key.ts";
import { parseBaseName, parseStorePath, storeHashOf } from "../../src/nar/store-path.ts";
import { parseChallenges } from "../../src/oci/challenge.ts";
import { parseNextLink } from "../../src/oci/link.ts";
import { formatReference, isTag, parseReference } from "../../src/oci/reference.ts";
import { corpus, mutatedText } from "./mutate.ts";
import { attempt, fuzz } from "./property.ts";

const text = (name: string) => mutatedText(corpus(name));
/** Texts that have nothing to do with what is expected. */
const anything = fc.string({ unit: "binary", maxLength: 300 });
const either = (name: string) => fc.oneof({ weight: 9, arbitrary: text(name) }, anything);

test("narinfo", () => {
  fuzz(
    either("narinfo"),
    3000,
    ["corrupt"],
    (input) => parseNarInfo(input),
    (info) => {
      const again = parseNarInfo(formatNarInfo(info));
      expect(again).toEqual(info);
      expect(info.narSize).toBeGreaterThan(0);
    },
  );
});

test("narinfo: a MiB of lines takes no longer than its length", () => {
  const hex = `FileHash: sha256:${"a".repeat(64)}\n`;
  const lines = [
    hex,
    "NarHash: md5-AAAAAAAAAAAAAAAAAAAAAA==\n",
    "CA: \n",
    "Sig: a:b\n",
    "References: \n",
    "x: \n",
  ];
  for (const line of lines) {
    const input = line.repeat(Math.floor(MAX_NARINFO_LENGTH / line.length));
    // Ten of them in one attempt: 0.2 s here, and over its bound when the time grows with the square.
    attempt(["corrupt"], () => {
      for (let turn = 1; turn < 10; turn++) attempt(["corrupt"], () => parseNarInfo(input));
      return parseNarInfo(input);
    });
  }
});

test("signature, and what it is checked against", () => {
  const key = parsePublicKey(Buffer.from(corpus("key")[0] ?? []).toString());
  const info = parseNarInfo(Buffer.from(corpus("narinfo")[1] ?? []).toString());
  fuzz(either("signature"), 1500, ["corrupt"], parseSignature, (signature, input) => {
    expect(formatSignature(signature)).toBe(input);
  });
  fuzz(either("signature"), 300, [], (sig) =>
    expect(verifyingKey({ ...info, sigs: [sig, `${key.name}:${sig.slice(2)}`] }, [key])).toBeUndefined(),
  );
});

test("store path", () => {
  fuzz(
    either("store-path"),
    1500,
    ["nix-store"],
    (input) => parseStorePath(input),
    ({ path }, input) => {
      expect(path).toBe(input);
      expect(path).toMatch(/^\/nix\/store\/[0-9a-z]{32}-[0-9A-Za-z+._?=-]{1,211}$/);
    },
  );
  fuzz(either("store-path"), 1500, ["nix-store"], (input) => parseBaseName(input));
  fuzz(either("store-path"), 1500, ["nix-store"], storeHashOf, (hash) => expect(hash).toHaveLength(32));
});

test("hash, base32, content address", () => {
  fuzz(
    either("hash"),
    2000,
    ["corrupt"],
    (input) => parseHash(input, "hash"),
    (hash) => {
      for (const encoding of ["base32", "base16", "base64", "sri"] as const) {
        expect(parseHash(formatHash(hash, encoding), "again")).toEqual(hash);
      }
    },
  );
  fuzz(
    either("hash"),
    1500,
    ["corrupt"],
    (input) => canonicalSha256(input, "hash"),
    (hash) => expect(hash).toMatch(/^sha256:[0-9a-z]{52}$/),
  );
  fuzz(
    either("hash"),
    1500,
    ["corrupt"],
    (input) => parseContentAddress(input, "ca"),
    (address) => expect(parseContentAddress(formatContentAddress(address), "again")).toEqual(address),
  );
  fuzz(either("hash"), 1500, ["corrupt"], decodeBase32, (bytes, input) =>
    expect(encodeBase32(bytes)).toBe(input),
  );
});

test("tag", () => {
  fuzz(either("tag"), 2000, [], parseTag, (tag, input) => {
    if (tag === undefined) return;
    expect(isTag(input)).toBe(true);
    if (tag.kind === "dead") expect(Number.isFinite(tag.since)).toBe(true);
  });
});

test("hosts that are no address are no reference, not a URL that cannot be made later", () => {
  for (const host of ["1.2.3.4.5", "256.1.1.1", "a.0.0.1:5000", "[::::]", "[1]:5000", "x.0x"]) {
    expect([host, attempt(["reference"], () => parseReference(`${host}/name`))]).toEqual([host, undefined]);
  }
});

test("cache reference", () => {
  fuzz(either("reference"), 4000, ["reference"], parseReference, (reference, input) => {
    expect(parseReference(formatReference(reference))).toEqual(reference);
    if (reference.kind === "layout") {
      expect(input.endsWith(reference.path)).toBe(true);
      return;
    }
    const { scheme, host, repository } = reference;
    // No reference bends the address: what stands before and behind the name stays where it is.
    const url = new URL(`/v2/${repository}/tags/list`, `${scheme}://${host}`);
    expect([url.pathname, url.search, url.username]).toEqual([`/v2/${repository}/tags/list`, "", ""]);
  });
});

describe("headers, which never throw", () => {
  test("WWW-Authenticate", () => {
    fuzz(either("challenge"), 3000, [], parseChallenges, (challenges) => {
      for (const { scheme, parameters } of challenges) {
        expect(scheme).toMatch(/^[!#$%&'*+.^_`|~0-9a-z-]+$/);
        for (const name of parameters.keys()) expect(name).toBe(name.toLowerCase());
      }
    });
  });

  test("Link", () => {
    fuzz(either("link"), 3000, [], parseNextLink, (next, input) => {
      if (next !== undefined) expect(input).toContain(`<${next}>`);
    });
  });

  test.each(["<", "<>", ";", "; ", '"', "\\", ",", "a=", 'a="', "Bearer ", " ", "=", '; rel="', "A a=b,"])(
    "a flood of %j",
    (piece) => {
      for (const length of [16_384, 1_000_000]) {
        const header = piece.repeat(Math.floor(length / piece.length));
        attempt([], () => parseChallenges(header));
        attempt([], () => parseNextLink(header));
        attempt([], () => parseNextLink(`<x>${header}`));
        attempt([], () => parseChallenges(`Bearer realm=${header}`));
      }
    },
  );
});

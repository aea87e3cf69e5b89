import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { parseNarInfo } from "../../../src/nar/narinfo.ts";
import {
  fingerprint,
  formatSignature,
  parseSignature,
  signNarInfo,
  verifyingKey,
  verifyNarInfo,
} from "../../../src/nar/signature.ts";
import {
  generateSecretKey,
  parsePublicKey,
  parseSecretKey,
  publicKeyOf,
} from "../../../src/nar/signing-key.ts";
import { propertyParameters } from "../../support/seed.ts";
import { fixtureText, thrownBy } from "./fixtures.ts";

const A = "0".repeat(32);
const B = "1".repeat(32);
const NAR_HASH = `sha256:1${"b".repeat(51)}`;
const INFO = { storePath: `/nix/store/${A}-a`, narHash: NAR_HASH, narSize: 200, references: [] as string[] };

const KEY = generateSecretKey("one", new Uint8Array(32).fill(1));
const OTHER = generateSecretKey("two", new Uint8Array(32).fill(2));
const GOOD = signNarInfo(INFO, KEY);

describe("fingerprint", () => {
  test("no references give an empty field", () => {
    expect(fingerprint(INFO)).toBe(`1;/nix/store/${A}-a;${NAR_HASH};200;`);
  });

  test("references are full paths, ascending by bytes, itself included", () => {
    const references = [`${B}-b`, `${A}-a`, `${A}-B`];
    expect(fingerprint({ ...INFO, references })).toBe(
      `1;/nix/store/${A}-a;${NAR_HASH};200;/nix/store/${A}-B,/nix/store/${A}-a,/nix/store/${B}-b`,
    );
  });

  test("another store directory", () => {
    const info = { ...INFO, storePath: `/s/${A}-a`, references: [`${A}-a`] };
    expect(fingerprint(info, "/s")).toBe(`1;/s/${A}-a;${NAR_HASH};200;/s/${A}-a`);
  });
});

describe("signatures", () => {
  const fixture = parseNarInfo(fixtureText("tree.narinfo"));
  const secret = parseSecretKey(fixtureText("key.secret"));
  const trusted = parsePublicKey(fixtureText("key.public"));

  test("we sign as Nix signed, and find its signature good", () => {
    expect(fixture.sigs).toEqual([signNarInfo(fixture, secret)]);
    expect(verifyNarInfo(fixture, [trusted])).toBe(true);
    expect(verifyingKey(fixture, [publicKeyOf(KEY), trusted])).toEqual(trusted);
  });

  test("what it covers, and what not", () => {
    const elsewhere = { ...fixture, url: "x", compression: "none", deriver: `${A}-x` };
    expect(verifyNarInfo(elsewhere, [trusted])).toBe(true);
    for (const change of [
      { storePath: `${fixture.storePath}x` },
      { narHash: NAR_HASH },
      { narSize: fixture.narSize + 1 },
      { references: [`${A}-a`] },
    ]) {
      expect(verifyNarInfo({ ...fixture, ...change }, [trusted])).toBe(false);
    }
  });

  test("one good signature suffices, unknown names are ignored", () => {
    const keys = [publicKeyOf(KEY), publicKeyOf(OTHER)];
    expect(verifyingKey({ ...INFO, sigs: ["unknown:x", "", "nothing", GOOD] }, keys)?.name).toBe("one");
    const forged = `two:${GOOD.slice("one:".length)}`;
    expect(verifyingKey({ ...INFO, sigs: [forged, GOOD] }, keys)?.name).toBe("one");
    expect(verifyNarInfo({ ...INFO, sigs: [forged] }, keys)).toBe(false);
    expect(verifyNarInfo({ ...INFO, sigs: [GOOD] }, [])).toBe(false);
    expect(verifyNarInfo({ ...INFO, sigs: [] }, keys)).toBe(false);
  });

  test("no signature after a trusted name spoils the path, as in Nix, and so does base64 that nobody writes", () => {
    for (const bad of ["one:", "one:AAAA", "one:!", `${GOOD}AAAA`, GOOD.slice(0, -2)]) {
      expect(verifyNarInfo({ ...INFO, sigs: [GOOD, bad] }, [publicKeyOf(KEY)])).toBe(false);
    }
  });

  test("a key whose name was there before adds nothing", () => {
    const impostor = publicKeyOf(generateSecretKey("one", new Uint8Array(32).fill(9)));
    expect(verifyNarInfo({ ...INFO, sigs: [GOOD] }, [publicKeyOf(KEY), impostor])).toBe(true);
    expect(verifyNarInfo({ ...INFO, sigs: [GOOD] }, [impostor, publicKeyOf(KEY)])).toBe(false);
  });

  test("public bytes that are no point are no reason to throw", () => {
    for (const byte of [0, 1, 0xff]) {
      const key = { name: "one", bytes: new Uint8Array(32).fill(byte) };
      expect(verifyNarInfo({ ...INFO, sigs: [GOOD] }, [key])).toBe(false);
    }
  });

  test("parse and format", () => {
    const parsed = parseSignature(GOOD);
    expect(parsed.name).toBe("one");
    expect(parsed.bytes.length).toBe(64);
    expect(formatSignature(parsed)).toBe(GOOD);
  });

  test.each(["", "x", "x:", "x:AAAA", `:${GOOD.slice(4)}`, GOOD.slice(0, -1), `${GOOD} `, `a:${GOOD}`])(
    "%j is no signature",
    (text) => {
      const error = thrownBy(() => parseSignature(text, "Sig"));
      expect(error.code).toBe("corrupt");
      expect(error.message).toStartWith(`Sig: got ${JSON.stringify(text)}, expected <key name>:<base64`);
    },
  );

  test("any signature is good for its key and path, and for no changed bit of it", () => {
    const hashes = fc.nat(51).map((zeros) => `sha256:${"0".repeat(zeros + 1)}${"1".repeat(51 - zeros)}`);
    const bits = fc.nat(64 * 8 - 1);
    fc.assert(
      fc.property(hashes, fc.integer({ min: 1 }), bits, (narHash, narSize, bit) => {
        const info = { ...INFO, narHash, narSize };
        const sig = signNarInfo(info, KEY);
        expect(verifyNarInfo({ ...info, sigs: [sig] }, [publicKeyOf(KEY)])).toBe(true);
        const { name, bytes } = parseSignature(sig);
        bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        expect(verifyNarInfo({ ...info, sigs: [formatSignature({ name, bytes })] }, [publicKeyOf(KEY)])).toBe(
          false,
        );
      }),
      { ...propertyParameters(), numRuns: 40 },
    );
  });
});

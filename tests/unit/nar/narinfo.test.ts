import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { BASE32_ALPHABET } from "../../../src/nar/base32.ts";
import { COMPRESSIONS, formatNarInfo, type NarInfo, parseNarInfo } from "../../../src/nar/narinfo.ts";
import { propertyParameters } from "../../support/seed.ts";
import { fixtureText, thrownBy } from "./fixtures.ts";

const A = "0".repeat(32);
const B = "1".repeat(32);
const NAR_HASH = `sha256:1${"b".repeat(51)}`;
const FILE_HASH = `sha256:0${"c".repeat(51)}`;
const NAR_HASH_BASE16 = "sha256:98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4";
const NAR_HASH_BASE32 = "sha256:1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq";

const FULL: NarInfo = {
  storePath: `/nix/store/${A}-hello`,
  url: "nar/x.nar.zst",
  compression: "zstd",
  fileHash: FILE_HASH,
  fileSize: 10,
  narHash: NAR_HASH,
  narSize: 200,
  references: [`${A}-hello`, `${B}-glibc`],
  deriver: `${B}-hello.drv`,
  sigs: ["one:AAAA", "two:BBBB"],
  ca: `fixed:r:${NAR_HASH}`,
};

const FULL_TEXT = `StorePath: /nix/store/${A}-hello
URL: nar/x.nar.zst
Compression: zstd
FileHash: ${FILE_HASH}
FileSize: 10
NarHash: ${NAR_HASH}
NarSize: 200
References: ${A}-hello ${B}-glibc
Deriver: ${B}-hello.drv
Sig: one:AAAA
Sig: two:BBBB
CA: fixed:r:${NAR_HASH}
`;

const REQUIRED = `StorePath: /nix/store/${A}-a\nURL: nar/x\nNarHash: ${NAR_HASH}\nNarSize: 1\n`;

describe("narinfo", () => {
  test("every field, in Nix's order", () => {
    expect(parseNarInfo(FULL_TEXT)).toEqual(FULL);
    expect(formatNarInfo(FULL)).toBe(FULL_TEXT);
  });

  test("what Nix wrote formats back to the same bytes", () => {
    const text = fixtureText("tree.narinfo");
    const info = parseNarInfo(text);
    expect(info.compression).toBe("xz");
    expect(info.narSize).toBe(2320);
    expect(info.sigs.length).toBe(1);
    expect(formatNarInfo(info)).toBe(text);
  });

  test("only what is required: the rest has its default or is absent", () => {
    // Strictly: a field that is absent must not be there as undefined.
    expect(parseNarInfo(REQUIRED)).toStrictEqual({
      storePath: `/nix/store/${A}-a`,
      url: "nar/x",
      compression: "bzip2",
      narHash: NAR_HASH,
      narSize: 1,
      references: [],
      sigs: [],
    });
  });

  test("References keep their blank when there are none", () => {
    expect(formatNarInfo(parseNarInfo(REQUIRED))).toEndWith("NarSize: 1\nReferences: \n");
  });

  const line = (text: string): NarInfo => parseNarInfo(`${REQUIRED}${text}\n`);

  test("what Nix tolerates", () => {
    expect(line("Deriver: unknown-deriver").deriver).toBeUndefined();
    expect(line("Compression: ").compression).toBe("bzip2");
    expect(line("X-New: thing")).toEqual(parseNarInfo(REQUIRED));
    expect(line("X: ")).toEqual(parseNarInfo(REQUIRED));
    expect(line("CA: ").ca).toBeUndefined();
    expect(
      line("CA: \nCA: text:sha256:98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4").ca,
    ).toBe(`text:${NAR_HASH_BASE32}`);
    expect(line(`References: \nReferences: ${B}-x`).references).toEqual([`${B}-x`]);
    expect(line(`References:  ${B}-x   ${A}-x  `).references).toEqual([`${A}-x`, `${B}-x`]);
    expect(line(`References: ${B}-x ${A}-x ${B}-x`).references).toEqual([`${A}-x`, `${B}-x`]);
    expect(line("Sig: a:b:c\nSig: x:1\nSig: a:b:c").sigs).toEqual(["a:b:c", "x:1"]);
    expect(line("URL: https://example.org/nar/x").url).toBe("https://example.org/nar/x");
    expect(line("FileSize: 0").fileSize).toBe(0);
    expect(line("NarSize: 9007199254740991").narSize).toBe(Number.MAX_SAFE_INTEGER);
  });

  test("hashes come out in one spelling", () => {
    expect(line(`NarHash: ${NAR_HASH_BASE16}`).narHash).toBe(NAR_HASH_BASE32);
    expect(line("FileHash: sha256-mOpuTyFvL7S2n/+bOkSELDhobKaF8/VdxIxdP7EQe+Q=").fileHash).toBe(
      NAR_HASH_BASE32,
    );
  });

  test.each([...COMPRESSIONS])("compression %s", (name) => {
    expect(line(`Compression: ${name}`).compression).toBe(name);
  });

  test("another store directory", () => {
    const text = REQUIRED.replace("/nix/store", "/tmp/s");
    expect(parseNarInfo(text, "narinfo", "/tmp/s").storePath).toBe(`/tmp/s/${A}-a`);
    expect(thrownBy(() => parseNarInfo(text)).message).toContain("expected a path in /nix/store");
  });

  // Each line follows the four required ones, so it is line 5.
  test.each([
    ["", 'a line "Name: value"'],
    ["NarSize", 'a line "Name: value"'],
    ["References:", "a blank after the colon"],
    ["URL:x", "a blank after the colon"],
    ["URL: x\r", "no carriage return"],
    ["X: y\r", "no carriage return"],
    ["StorePath: ", "a path in /nix/store"],
    [`StorePath: ${A}-a`, "a path in /nix/store"],
    [`StorePath: /nix/store/${A}`, "a store path"],
    [`StorePath: /nix/store/${A}-a/b`, "a store path"],
    ["Compression: zip", "one of none, xz"],
    ["Compression: ZSTD", "one of none, xz"],
    ["FileHash: x", "a hash"],
    ["FileHash: ", "a hash"],
    ["FileSize: ", "a size in bytes"],
    ["FileSize: 1.5", "a size in bytes"],
    [`NarHash: ${NAR_HASH}x`, "32 bytes of a sha256 hash"],
    ["NarHash: md5:764efa883dda1e11db47671c4a3bbd9e", "a sha256 hash"],
    ["NarSize: -1", "a size in bytes"],
    ["NarSize: +1", "a size in bytes"],
    ["NarSize: 1e3", "a size in bytes"],
    ["NarSize: 1 ", "a size in bytes"],
    ["NarSize: 9007199254740992", "a size in bytes"],
    ["NarSize: 18446744073709551617", "a size in bytes"],
    ["NarSize: 0", "at least one byte"],
    ["References: x", "store path base names"],
    [`References: /nix/store/${A}-a`, "store path base names"],
    [`References: ${A}-a\t${B}-b`, "store path base names"],
    ["Deriver: ", "the base name of a store path"],
    [`Deriver: /nix/store/${A}-a.drv`, "the base name of a store path"],
    ["Sig: x", "a signature"],
    ["Sig: :AAAA", "a signature"],
    ["CA: nar:sha256:x", "a content address"],
    ["CA: fixed:r:sha256:x", "32 bytes of a sha256 hash"],
  ])("%j is refused", (text, expected) => {
    const error = thrownBy(() => parseNarInfo(`${REQUIRED}${text}\nX: y\n`, "narinfo of a"));
    expect(error.code).toBe("corrupt");
    expect(error.message).toStartWith("narinfo of a line 5: got ");
    expect(error.message).toContain(expected);
  });

  test("the message of the style guide", () => {
    const text = REQUIRED.replace("NarSize: 1", "NarSize: -1");
    expect(thrownBy(() => parseNarInfo(text)).message).toBe(
      'narinfo line 4: got "NarSize: -1", expected a size in bytes',
    );
  });

  test.each([
    [`References: ${A}-x\nReferences: ${B}-x`, "References only once"],
    [`CA: fixed:r:${NAR_HASH}\nCA: fixed:r:${NAR_HASH}`, "CA only once"],
  ])("%j is refused", (text, expected) => {
    const error = thrownBy(() => parseNarInfo(`${REQUIRED}${text}\n`));
    expect(error.message).toStartWith("narinfo line 6: ");
    expect(error.message).toContain(expected);
  });

  test("no newline at the end is refused, and so is a truncation at any byte that loses a required field", () => {
    expect(thrownBy(() => parseNarInfo(FULL_TEXT.slice(0, -1))).message).toContain("a newline at the end");
    for (let length = 0; length < REQUIRED.length; length++) {
      expect(thrownBy(() => parseNarInfo(REQUIRED.slice(0, length))).code).toBe("corrupt");
    }
  });

  test.each(["StorePath", "URL", "NarHash", "NarSize"])("without %s", (name) => {
    const text = REQUIRED.replace(new RegExp(`^${name}: .*\n`, "m"), "");
    expect(thrownBy(() => parseNarInfo(text)).message).toStartWith(`narinfo: got no ${name}, expected `);
  });

  test("CRLF is refused", () => {
    expect(thrownBy(() => parseNarInfo(FULL_TEXT.replaceAll("\n", "\r\n"))).message).toContain(
      "carriage return",
    );
  });

  test("more than 1 MiB is refused", () => {
    const text = `${REQUIRED}X: ${"y".repeat(1024 * 1024)}\n`;
    expect(thrownBy(() => parseNarInfo(text)).message).toContain("expected at most 1 MiB");
  });

  test("format sorts references and drops repetitions without touching its input", () => {
    const references = [`${B}-b`, `${A}-a`, `${B}-b`];
    expect(formatNarInfo({ ...FULL, references })).toContain(`References: ${A}-a ${B}-b\n`);
    expect(references).toEqual([`${B}-b`, `${A}-a`, `${B}-b`]);
  });

  test("round trip of any narinfo", () => {
    const digits = (length: number) =>
      fc.string({ unit: fc.constantFrom(...BASE32_ALPHABET), minLength: length, maxLength: length });
    const baseName = fc
      .tuple(digits(32), fc.stringMatching(/^[0-9A-Za-z+._?=-]{1,40}$/))
      .map((parts) => parts.join("-"));
    const hash = fc.tuple(fc.constantFrom("0", "1"), digits(51)).map((parts) => `sha256:${parts.join("")}`);
    const info: fc.Arbitrary<NarInfo> = fc.record(
      {
        storePath: baseName.map((base) => `/nix/store/${base}`),
        url: fc.stringMatching(/^[!-~]{1,60}$/),
        compression: fc.constantFrom(...COMPRESSIONS),
        fileHash: hash,
        fileSize: fc.maxSafeNat(),
        narHash: hash,
        narSize: fc.maxSafeNat().map((size) => size || 1),
        references: fc.uniqueArray(baseName, { maxLength: 10 }).map((names) => names.sort()),
        deriver: baseName,
        sigs: fc.uniqueArray(fc.stringMatching(/^[a-z]{1,9}:[!-~]{0,90}$/), { maxLength: 3 }),
        ca: hash.map((text) => `fixed:r:${text}`),
      },
      { requiredKeys: ["storePath", "url", "compression", "narHash", "narSize", "references", "sigs"] },
    );
    fc.assert(
      fc.property(info, (value) => {
        const text = formatNarInfo(value);
        expect(parseNarInfo(text)).toEqual(value);
        expect(formatNarInfo(parseNarInfo(text))).toBe(text);
      }),
      propertyParameters(),
    );
  });

  test("a damaged narinfo is refused or read, never anything else", () => {
    fc.assert(
      fc.property(fc.nat(FULL_TEXT.length - 1), fc.string({ maxLength: 4 }), fc.nat(4), (at, insert, cut) => {
        try {
          parseNarInfo(FULL_TEXT.slice(0, at) + insert + FULL_TEXT.slice(at + cut));
        } catch (error) {
          expect(error).toHaveProperty("code", "corrupt");
        }
      }),
      propertyParameters(),
    );
  });
});

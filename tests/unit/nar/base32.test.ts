import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { base32Length, decodeBase32, encodeBase32 } from "../../../src/nar/base32.ts";
import { propertyParameters } from "../../support/seed.ts";
import { thrownBy } from "./fixtures.ts";

describe("base32", () => {
  // The last three were printed by `nix hash file --base32` (fixtures/nar/hashes.txt) and nix-hash.
  const table: [hex: string, text: string][] = [
    ["", ""],
    ["00", "00"],
    ["1f", "0z"],
    ["ff", "7z"],
    ["764efa883dda1e11db47671c4a3bbd9e", "4yplxll7378zdi27ns7n4glkkn"],
    ["55ca6286e3e4f4fba5d0448333fa99fc5a404a73", "fd540npwk7x370s4s2jzpx74wf365jjm"],
    [
      "98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4",
      "1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq",
    ],
  ];
  test.each(table)("%s is %s", (hex, text) => {
    expect(encodeBase32(Uint8Array.fromHex(hex))).toBe(text);
    expect(decodeBase32(text).toHex()).toBe(hex);
  });

  test.each([
    ["e0", "only characters of"],
    ["0E", "only characters of"],
    ["0o", "only characters of"],
    ["0u", "only characters of"],
    ["0t", "only characters of"],
    ["0é", "only characters of"],
    ["0\u{1f600}", "whole bytes"],
    [" 0", "only characters of"],
    ["0", "whole bytes"],
    ["000", "whole bytes"],
    ["000000", "whole bytes"],
    ["80", "no bits set beyond"],
    ["zz", "no bits set beyond"],
    ["2r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq", "no bits set beyond"],
  ])("%j is refused", (text, expected) => {
    const error = thrownBy(() => decodeBase32(text));
    expect(error.code).toBe("corrupt");
    expect(error.message).toContain(expected);
  });

  test("round trip of any bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        const text = encodeBase32(bytes);
        expect(text.length).toBe(base32Length(bytes.length));
        expect(decodeBase32(text)).toEqual(bytes);
      }),
      propertyParameters(),
    );
  });
});

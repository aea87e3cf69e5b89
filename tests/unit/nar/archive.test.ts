import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  compareNames,
  encodedLength,
  encodeWords,
  paddingOf,
  writeLength,
} from "../../../src/nar/archive.ts";
import { propertyParameters } from "../../support/seed.ts";
import { bytesOf, len, narOf, str, treeOf } from "./archives.ts";
import { fixtureBytes } from "./fixtures.ts";

describe("strings of an archive", () => {
  test.each([
    ["", "0000000000000000"],
    ["(", "01000000000000002800000000000000"],
    ["eightchr", "08000000000000006569676874636872"],
    ["ninechars", "09000000000000006e696e65636861727300000000000000"],
  ])("%j", (text, hex) => {
    expect(str(text).toHex()).toBe(hex);
    expect(encodeWords(text).toHex()).toBe(hex);
    expect(encodedLength(text.length)).toBe(hex.length / 2);
  });

  test("words follow each other", () => {
    expect(encodeWords("(", "", ")").toHex()).toBe(str("(").toHex() + str("").toHex() + str(")").toHex());
  });

  test.each([
    [0, "0000000000000000"],
    [0xff, "ff00000000000000"],
    [0xffff_ffff, "ffffffff00000000"],
    [0x1_0000_0000, "0000000001000000"],
    [0x1_2345_6789_abcd, "cdab896745230100"],
    [Number.MAX_SAFE_INTEGER, "ffffffffffff1f00"],
  ])("length %d", (length, hex) => {
    expect(len(length).toHex()).toBe(hex);
  });

  test("padding is written over what was there", () => {
    const target = new Uint8Array(24).fill(0xff);
    expect(writeLength(target, 8, 1)).toBe(16);
    expect(target.toHex()).toBe("ffffffffffffffff0100000000000000ffffffffffffffff");
    expect([0, 1, 7, 8, 9].map(paddingOf)).toEqual([0, 7, 1, 0, 7]);
  });

  test("lengths are little-endian 64-bit numbers", () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (length) => {
        expect(new DataView(len(length).buffer).getBigUint64(0, true)).toBe(BigInt(length));
      }),
      propertyParameters(),
    );
  });
});

test("names ascend by bytes, where JavaScript would have it otherwise", () => {
  const [replacement, smiley] = ["\ufffd", "\u{1f600}"];
  expect([replacement, smiley].sort()).toEqual([smiley, replacement]);
  expect(compareNames(bytesOf(replacement), bytesOf(smiley))).toBeLessThan(0);
  expect(compareNames(bytesOf("a"), bytesOf("a/"))).toBeLessThan(0);
  expect(compareNames(bytesOf("a"), bytesOf("a"))).toBe(0);
});

test("the archive that Nix wrote, read and written again, has the same bytes", () => {
  const nar = fixtureBytes("tree.nar");
  const { root } = treeOf(nar);
  expect(root?.type).toBe("directory");
  if (root !== undefined) expect(narOf(root).toHex()).toBe(nar.toHex());
});

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { encodeWords } from "../../../src/nar/archive.ts";
import { NarReader, readNar } from "../../../src/nar/reader.ts";
import { propertyParameters } from "../../support/seed.ts";
import { tree } from "./arbitrary-tree.ts";
import { bytesOf, concat, len, narOf, str, type Tree, treeOf } from "./archives.ts";
import { fixtureBytes, rejectionOf, thrownBy } from "./fixtures.ts";

const MAGIC = encodeWords("nix-archive-1");
const DIRECTORY = encodeWords("nix-archive-1", "(", "type", "directory");
const REGULAR = encodeWords("nix-archive-1", "(", "type", "regular", "contents");
const file = (text: string): Tree => ({ type: "regular", executable: false, contents: bytesOf(text) });

/** An archive of a folder that has entries of these names, in this order. */
function folderOf(...names: (string | Uint8Array)[]): Uint8Array {
  const child = encodeWords("node", "(", "type", "regular", "contents", "", ")", ")");
  const entries = names.map((name) => concat(encodeWords("entry", "(", "name"), str(name), child));
  return concat(DIRECTORY, ...entries, str(")"));
}

function nested(depth: number): Uint8Array {
  let node: Tree = file("x");
  for (let level = 1; level < depth; level++) node = { type: "directory", entries: [[bytesOf("d"), node]] };
  return narOf(node);
}

/** Bytes from the "(" of a directory to that of its first entry's node. */
const LEVEL = encodeWords("(", "type", "directory", "entry", "(", "name", "d", "node").length;

describe("archives that are none", () => {
  const good = folderOf("a", "b");
  const table: [what: string, nar: Uint8Array, offset: number, expected: string][] = [
    ["nothing", new Uint8Array(), 0, 'the end of the data, expected "nix-archive-1"'],
    ["another magic", encodeWords("nix-archive-2"), 0, 'got "nix-archive-2", expected "nix-archive-1"'],
    ["gzip", Uint8Array.fromHex("1f8b080000000000"), 0, 'expected "nix-archive-1"'],
    ["zeros", new Uint8Array(64), 0, 'got "", expected "nix-archive-1"'],
    ["the magic alone", MAGIC, 24, 'the end of the data, expected "("'],
    ["no open parenthesis", encodeWords("nix-archive-1", "["), 24, 'got "[", expected "("'],
    ["no type", encodeWords("nix-archive-1", "(", "kind"), 40, 'got "kind", expected "type"'],
    [
      "an unknown type",
      encodeWords("nix-archive-1", "(", "type", "fifo"),
      56,
      'got "fifo", expected "regular"',
    ],
    ["a keyword that begins right", encodeWords("nix-archive-1", "(", "type", "regularx"), 56, "expected"],
    ["a prefix of a keyword", encodeWords("nix-archive-1", "(", "type", "regula"), 56, "expected"],
    [
      "a value of executable",
      encodeWords("nix-archive-1", "(", "type", "regular", "executable", "yes"),
      96,
      "expected an empty string",
    ],
    [
      "contents before executable",
      encodeWords("nix-archive-1", "(", "type", "regular", "contents", "", "executable"),
      96,
      'got "executable", expected ")"',
    ],
    [
      "no contents",
      encodeWords("nix-archive-1", "(", "type", "regular", ")"),
      72,
      'expected "executable" or',
    ],
    ["contents of a directory", concat(DIRECTORY, str("contents")), 80, 'expected "entry" or ")"'],
    ["entries of a file", encodeWords("nix-archive-1", "(", "type", "regular", "entry"), 72, 'got "entry"'],
    [
      "a symlink without target",
      encodeWords("nix-archive-1", "(", "type", "symlink", ")"),
      72,
      'expected "target"',
    ],
    [
      "an empty target",
      encodeWords("nix-archive-1", "(", "type", "symlink", "target", "", ")"),
      88,
      "expected a symlink target of 1 to 4095",
    ],
    [
      "NUL in a target",
      encodeWords("nix-archive-1", "(", "type", "symlink", "target", "a\0b", ")"),
      88,
      "expected a symlink target",
    ],
    [
      "a target of 4096 bytes",
      encodeWords("nix-archive-1", "(", "type", "symlink", "target", "x".repeat(4096), ")"),
      88,
      "a string of 4096 bytes, expected a symlink target",
    ],
    ["an entry without parenthesis", concat(DIRECTORY, encodeWords("entry", "name")), 96, 'expected "("'],
    ["an entry without name", concat(DIRECTORY, encodeWords("entry", "(", "node")), 112, 'expected "name"'],
    [
      "an entry without node",
      concat(DIRECTORY, encodeWords("entry", "(", "name", "a", ")")),
      144,
      'expected "node"',
    ],
    ["an empty name", folderOf(""), 128, 'the name ""'],
    ["the name .", folderOf("."), 128, 'the name "."'],
    ["the name ..", folderOf(".."), 128, 'the name ".."'],
    ["a slash in a name", folderOf("a/b"), 128, 'the name "a/b"'],
    ["a slash as a name", folderOf("/"), 128, 'the name "/"'],
    ["NUL in a name", folderOf("a\0"), 128, 'the name "a\\u0000"'],
    [
      "a name of 256 bytes",
      folderOf("x".repeat(256)),
      128,
      "a string of 256 bytes, expected a name of 1 to 255",
    ],
    ["a name twice", folderOf("a", "a"), 312, 'the name "a" twice'],
    ["names that do not ascend", folderOf("b", "a"), 312, 'the name "a", expected one that sorts after "b"'],
    ["names in the order of UTF-16", folderOf("\u{1f600}", "\ufffd"), 312, "expected one that sorts after"],
    ["a name that is a prefix of the one before", folderOf("ab", "a"), 312, "expected one that sorts after"],
    [
      "bytes behind the end",
      concat(good, new Uint8Array(8)),
      good.length,
      "got more bytes, expected the end",
    ],
    [
      "one byte behind the end",
      concat(good, new Uint8Array(1)),
      good.length,
      "got more bytes, expected the end",
    ],
    ["two archives", concat(good, good), good.length, "got more bytes, expected the end"],
    ["padding of a keyword", MAGIC.with(MAGIC.length - 1, 1), 23, "got a byte that is not zero"],
    ["padding of contents", narOf(file("x")).with(103, 7), 103, "got a byte that is not zero"],
    ["padding of a name", folderOf("a").with(137, 7), 137, "got a byte that is not zero"],
    [
      "a keyword of 2^63 bytes",
      concat(MAGIC, Uint8Array.fromHex("0000000000000080")),
      24,
      "a string of 92233720368547",
    ],
    ["a keyword of 4 GiB", concat(MAGIC, len(2 ** 32)), 24, "a string of 4294967296 bytes"],
    [
      "a name of 1 GiB",
      concat(DIRECTORY, encodeWords("entry", "(", "name"), len(2 ** 30)),
      128,
      "a string of 1073741824",
    ],
    [
      "contents of 2^53 bytes",
      concat(REGULAR, Uint8Array.fromHex("0000000000002000")),
      88,
      "a size of 9007199254740992",
    ],
    [
      "contents of 2^64-1 bytes",
      concat(REGULAR, Uint8Array.fromHex("ffffffffffffffff")),
      88,
      "a size of 18446744073709",
    ],
    [
      "contents that end early",
      concat(REGULAR, len(100), bytesOf("abc")),
      99,
      "the end of the data, expected 97 more",
    ],
    [
      "contents of a petabyte that end early",
      concat(REGULAR, len(2 ** 50)),
      96,
      "expected 1125899906842624 more",
    ],
    ["65 levels", nested(65), MAGIC.length + 64 * LEVEL, "at most 64 levels"],
  ];

  test.each(table)("%s", (_, nar, offset, expected) => {
    // In one piece, byte by byte, and in pieces that split every word.
    for (const size of [nar.length || 1, 1, 7, 13]) {
      const error = thrownBy(() => treeOf(nar, size));
      expect(error.code).toBe("corrupt");
      expect(error.message).toStartWith(`NAR at byte ${offset}: got `);
      expect(error.message).toContain(expected);
    }
  });

  test("a good archive cut anywhere", () => {
    const nar = fixtureBytes("tree.nar");
    for (let length = 0; length < nar.length; length++) {
      const error = thrownBy(() => treeOf(nar.subarray(0, length)));
      expect(error.message).toStartWith(`NAR at byte ${length}: got the end of the data`);
    }
  });

  test("after an error every call throws the same", () => {
    const reader = new NarReader();
    const error = thrownBy(() => reader.write(encodeWords("tar")));
    expect(thrownBy(() => reader.write(MAGIC))).toBe(error);
    expect(thrownBy(() => reader.end())).toBe(error);
  });
});

describe("archives", () => {
  test("in pieces of any size give the same tree", () => {
    const nar = fixtureBytes("tree.nar");
    const whole = treeOf(nar);
    for (const size of [1, 2, 3, 7, 8, 9, 64, 1000]) expect(treeOf(nar, size)).toEqual(whole);
  });

  test("offsets point to the contents", () => {
    const nar = fixtureBytes("tree.nar");
    const text = new TextDecoder("latin1").decode(nar);
    const { offsets } = treeOf(nar, 5);
    expect(offsets).toContain(text.indexOf("#!/bin/sh\n"));
    expect(offsets).toContain(text.indexOf("12345678"));
  });

  test("at the bounds: 64 levels, names of 255 bytes, targets of 4095", () => {
    expect(treeOf(nested(64)).root?.type).toBe("directory");
    expect(treeOf(folderOf("x".repeat(255)), 100).root?.type).toBe("directory");
    const link: Tree = { type: "symlink", target: bytesOf("t".repeat(4095)) };
    for (const size of [1, 4000, 5000]) expect(treeOf(narOf(link), size).root).toEqual(link);
  });

  test("names that look like dots are fine", () => {
    expect(treeOf(folderOf("...", "..a", ".a")).root?.type).toBe("directory");
  });

  test("readNar gives the size", async () => {
    const nar = fixtureBytes("tree.nar");
    expect(await readNar([nar.subarray(0, 100), nar.subarray(100)])).toBe(nar.length);
    const error = await rejectionOf(readNar([nar.subarray(0, 100)], {}, "NAR of x"));
    expect(error.message).toStartWith("NAR of x at byte 100: ");
  });

  test("names and targets are copies, even of Buffers", () => {
    const nar = Buffer.from(fixtureBytes("tree.nar"));
    const names: Uint8Array[] = [];
    const reader = new NarReader({
      symlink: (name, target) => void names.push(name ?? new Uint8Array(), target),
    });
    reader.write(nar);
    nar.fill(0);
    expect(names.map((name) => new TextDecoder().decode(name))).toEqual(["dangling", "nowhere"]);
  });

  test("round trip of any tree, in pieces of any size", () => {
    fc.assert(
      fc.property(tree, fc.integer({ min: 1, max: 50 }), (value, size) => {
        expect(treeOf(narOf(value), size).root).toEqual(value);
      }),
      propertyParameters(),
    );
  });

  test("one byte changed: refused, or another tree, or a byte of padding that cannot be", () => {
    const nar = fixtureBytes("tree.nar");
    const hex = nar.toHex();
    fc.assert(
      fc.property(fc.nat(nar.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const changed = nar.with(at, (nar[at] ?? 0) ^ flip);
        try {
          const { root } = treeOf(changed);
          // Canonical: what is accepted has exactly these bytes.
          expect(root === undefined ? "" : narOf(root).toHex()).toBe(changed.toHex());
          expect(changed.toHex()).not.toBe(hex);
        } catch (error) {
          expect(error).toHaveProperty("code", "corrupt");
        }
      }),
      { ...propertyParameters(), numRuns: 2000 },
    );
  });
});

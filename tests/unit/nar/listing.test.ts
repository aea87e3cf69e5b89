import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ListingBuilder } from "../../../src/nar/listing.ts";
import { NarReader } from "../../../src/nar/reader.ts";
import { propertyParameters } from "../../support/seed.ts";
import { tree } from "./arbitrary-tree.ts";
import { bytesOf, narOf, type Tree } from "./archives.ts";
import { fixtureBytes, fixtureText } from "./fixtures.ts";

function listingOf(nar: Uint8Array, maxLength?: number): string | undefined {
  const builder = new ListingBuilder(maxLength);
  const reader = new NarReader(builder);
  reader.write(nar);
  reader.end();
  return builder.text;
}

describe("listing", () => {
  test("has the bytes that Nix wrote", () => {
    expect(listingOf(fixtureBytes("tree.nar"))).toBe(fixtureText("tree.ls"));
  });

  const table: [string, Tree, string][] = [
    [
      "a file",
      { type: "regular", executable: false, contents: bytesOf("abc") },
      '{"version":1,"root":{"type":"regular","size":3,"narOffset":96}}',
    ],
    [
      "an executable",
      { type: "regular", executable: true, contents: new Uint8Array() },
      '{"version":1,"root":{"type":"regular","size":0,"executable":true,"narOffset":128}}',
    ],
    [
      "a symlink",
      { type: "symlink", target: bytesOf('a"b\\ü') },
      '{"version":1,"root":{"type":"symlink","target":"a\\"b\\\\ü"}}',
    ],
    [
      "an empty directory",
      { type: "directory", entries: [] },
      '{"version":1,"root":{"type":"directory","entries":{}}}',
    ],
  ];
  test.each(table)("%s as root", (_, value, text) => {
    expect(listingOf(narOf(value))).toBe(text);
  });

  test("a byte order mark in a name stays", () => {
    const entries: [Uint8Array, Tree][] = [[bytesOf("\ufeffx"), { type: "symlink", target: bytesOf("y") }]];
    expect(listingOf(narOf({ type: "directory", entries }))).toContain('"\ufeffx"');
  });

  test.each([
    ["name", { type: "directory", entries: [[new Uint8Array([0xff]), { type: "directory", entries: [] }]] }],
    ["target", { type: "symlink", target: new Uint8Array([0x61, 0xc3]) }],
  ] as [string, Tree][])("there is none when a %s is not UTF-8", (_, value) => {
    expect(listingOf(narOf(value))).toBeUndefined();
  });

  test("there is none when it would be too long", () => {
    const nar = fixtureBytes("tree.nar");
    const { length } = fixtureText("tree.ls");
    expect(listingOf(nar, length)).toHaveLength(length);
    expect(listingOf(nar, length / 2)).toBeUndefined();
  });

  test("of any tree is JSON with the sizes of its files, or there is none", () => {
    fc.assert(
      fc.property(tree, (value) => {
        const text = listingOf(narOf(value));
        if (text === undefined) return;
        const parsed = JSON.parse(text);
        expect(parsed.version).toBe(1);
        expect(parsed.root.type).toBe(value.type);
        if (value.type === "regular") expect(parsed.root.size).toBe(value.contents.length);
        if (value.type === "directory")
          expect(Object.keys(parsed.root.entries).length).toBe(value.entries.length);
      }),
      propertyParameters(),
    );
  });
});

/** Finding lines in a layer's text: the same lines that reading all of it finds, however it is cut. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type EntryLine, encodeEntry, entryOf, formatLine, parseLine } from "../../../src/cache/entry.ts";
import { formatLayer, type LayerHeader } from "../../../src/cache/index-layer.ts";
import { LayerScanner } from "../../../src/cache/layer-scan.ts";
import { fileKey, hashKey, TableBuilder } from "../../../src/cache/layer-table.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { TestHost, testEntry, testRecord } from "../../support/protocol.ts";
import { propertyParameters } from "../../support/seed.ts";

const HEADER: LayerHeader = {
  kind: "root",
  covers: [{ name: "20260101t000000z-0123456789abcdef", record: testRecord([], new TestHost()) }],
  nonce: "n",
};

/** Takes down what it is told, in order. */
class Told extends TableBuilder {
  readonly lines: { key: number; offset: number; length: number; fileKey: number }[] = [];

  override add(key: number, offset: number, length: number, file: number): void {
    this.lines.push({ key, offset, length, fileKey: file });
  }
}

function scan(text: Uint8Array, sizes: readonly number[] = []) {
  const told = new Told();
  const attached: EntryLine[] = [];
  const scanner = new LayerScanner("test", told, (line) => attached.push(line));
  let at = 0;
  for (const size of [...sizes, text.length]) {
    const chunk = Uint8Array.from(text.subarray(at, at + size));
    at += size;
    scanner.push(chunk);
    // The memory of a chunk may be used again.
    chunk.fill(0);
  }
  return { header: scanner.end(), lines: told.lines, attached, broken: scanner.broken };
}

const line = (name: string, more: Partial<Parameters<typeof encodeEntry>[0]> = {}) =>
  encodeEntry({ ...entryOf(testEntry(name).line), ...more });

const textOf = (lines: readonly string[]) =>
  Buffer.from([...formatLayer(HEADER, []), ...lines].map((text) => `${text}\n`).join(""));

const PART = { blob: digestOf("blob"), size: 900, offset: 0, length: 5 };
/** The line of a path whose NAR has two parts. */
function inParts(of: string): EntryLine {
  const size = entryOf(testEntry(of).line).info.fileSize ?? 0;
  return line(of, { parts: [PART, { ...PART, length: size - PART.length }] });
}

const name = fc.stringMatching(/^[a-z0-9.-]{1,12}$/);
/** The usual ones, one with attached files, one with a field of a later version, and others that mean the same. */
const anyLine = fc.oneof(
  name.map((of) => formatLine(line(of))),
  name.map((of) => formatLine(line(of, { listing: PART }))),
  name.map((of) => formatLine(inParts(of))),
  name.map((of) => formatLine(line(of, { attached: { "log/x.drv": { text: "a log" } } }))),
  fc
    .tuple(name, fc.string({ unit: "grapheme" }))
    .map(([of, more]) => formatLine(line(of)).replace(/\}$/, `,"later":${JSON.stringify(more)}}`)),
  name.map((of) => formatLine(line(of)).replace("StorePath", "\\u0053torePath")),
  name.map((of) => ` ${formatLine(line(of))}`),
  name.map((of) => formatLine(line(of)).replace(/\.nar\.zst/, ".\\u006ear.zst")),
);
const cuts = fc.array(fc.integer({ min: 0, max: 2000 }), { maxLength: 12 });

describe("scanning", () => {
  test("finds each line with its place and its keys", () => {
    fc.assert(
      fc.property(fc.array(anyLine, { maxLength: 12 }), cuts, (lines, sizes) => {
        const text = textOf(lines);
        const found = scan(text, sizes);
        expect(found.header).toEqual(HEADER);
        expect(found.lines).toHaveLength(lines.length);
        for (const [place, { key, offset, length, fileKey: file }] of found.lines.entries()) {
          const at = text.subarray(offset, offset + length).toString();
          expect(at).toBe(lines[place] as string);
          const parsed = parseLine(at, "test");
          expect([key, file]).toEqual([hashKey(parsed.storeHash), fileKey(parsed.file)]);
        }
        const withFiles = lines.filter((of) => of.includes('"attached":'));
        expect(found.attached).toEqual(withFiles.map((of) => parseLine(of, "test")));
      }),
      propertyParameters(),
    );
  });

  test.each([
    ["a path", line("a")],
    ["one with a listing", line("a", { listing: PART })],
    [
      "one whose NAR has parts",
      line("a", {
        parts: [
          { ...PART, length: 9 },
          { ...PART, length: 10 },
        ],
      }),
    ],
  ])(
    "does not parse the line of %s: what is wrong in its narinfo is left to whoever asks for it",
    (_, usual) => {
      const text = formatLine(usual).replace("NarSize: 100", "NarSize: x");
      expect(() => parseLine(text, "test")).toThrow("NarSize: x");
      expect(scan(textOf([text])).lines).toHaveLength(1);
    },
  );

  const usual = formatLine(line("a"));
  test.each([
    ["no JSON", "nonsense", /line 3: not valid JSON/],
    ["an entry without a narinfo", '{"parts":[]}', /line 3: expected the text field "narinfo"/],
    ["an empty line", "", /line 3: not valid JSON/],
    ["a hash with a foreign letter", usual.replace(/store\/./, "store/e"), /line 3 .*store path/],
    ["a NAR elsewhere", usual.replace("URL: nar/", "URL: rar/"), /line 3: .*expected nar/],
    ["a NAR in a folder", usual.replace("URL: nar/", "URL: nar/x/"), /line 3: .*expected nar/],
    ["no parts", usual.replace(/"parts":.*,"added"/, '"parts":[],"added"'), /line 3: /],
  ])("passes over %s, and says which line it is", (_, bad, message) => {
    const { lines, broken } = scan(textOf([bad, usual, bad]));
    expect(lines).toHaveLength(1);
    expect(broken?.message).toMatch(message);
  });

  test("refuses a root that covers a generation twice", () => {
    const [first = "", cover = ""] = [...formatLayer(HEADER, [])];
    const twice = [first.replace('"covers":1', '"covers":2'), cover, cover].map((text) => `${text}\n`);
    expect(() => scan(Buffer.from(twice.join("")))).toThrow(/line 3: it covers .* twice/);
  });

  test("refuses what is not UTF-8, with the line; and text that ends early", () => {
    const text = Buffer.concat([textOf([usual]), Buffer.from('{"narinfo":"\xff'), Buffer.from([0xff, 10])]);
    expect(() => scan(text)).toThrow("line 4 is not UTF-8");
    expect(() => scan(textOf([usual]).subarray(0, -1))).toThrow("in the middle of line 3");
    expect(() => scan(textOf([]).subarray(0, textOf([]).indexOf(10) + 1))).toThrow("inside its header");
    expect(() => scan(new Uint8Array())).toThrow("inside its header");
  });

  test("refuses a line that is too long before all of it is there", () => {
    const told = new Told();
    const scanner = new LayerScanner("test", told, () => {});
    scanner.push(textOf([usual]));
    const piece = Buffer.alloc(1024 * 1024, "x");
    expect(() => {
      for (let pieces = 0; pieces < 6; pieces++) scanner.push(piece);
    }).toThrow("line 4 is longer than 4194304 bytes");
  });
});

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { formatLine, MAX_LINE_BYTES, parseLine } from "../../../src/cache/entry.ts";
import { formatLayer, type LayerHeader, LayerParser, LineSplitter } from "../../../src/cache/index-layer.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { TestHost, testEntry, testRecord } from "../../support/protocol.ts";
import { propertyParameters } from "../../support/seed.ts";

const RECORD = testRecord([], new TestHost());
const NAME = "20260101t000000z-0123456789abcdef";

function parse(lines: Iterable<string>) {
  const parser = new LayerParser("layer");
  const entries = [...lines].flatMap((line) => parser.push(line) ?? []);
  return { header: parser.header(), entries };
}

describe("an index layer", () => {
  const headers: LayerHeader[] = [
    { kind: "segment", record: RECORD },
    { kind: "root", covers: [], nonce: "" },
    {
      kind: "root",
      nonce: "0123",
      covers: [
        { name: NAME, record: { ...RECORD, system: "x86_64-linux", revision: "abc", run: "https://x" } },
      ],
    },
  ];
  for (const header of headers) {
    test(`of kind ${header.kind} comes back as it was written`, () => {
      const lines = ["a", "b"].map((name) => testEntry(name).line);
      expect(parse(formatLayer(header, lines))).toEqual({ header, entries: lines });
    });
  }

  test("is read and restated byte for byte, with fields of later versions", () => {
    const line = formatLine(testEntry("a").line).replace(/}$/, ',"later":{"root":[1,2]},"x":null}');
    expect(formatLine(parseLine(line, "line"))).toBe(line);
  });

  test.each([
    ["", "ended after 0 lines"],
    ["{", "layer, line 1: not valid JSON"],
    ["[]", "layer, line 1: got []"],
    ['{"nixcache":2,"kind":"segment"}', "got format 2, expected 1"],
    ['{"nixcache":1,"kind":"other"}', "expected the header"],
    ['{"nixcache":1,"kind":"root","covers":-1}', "expected the header"],
    ['{"nixcache":1,"kind":"root","covers":1}', "inside its header"],
    ['{"nixcache":1,"kind":"root","covers":1}\n{"covers":"seg-x"}', 'got "covers": "seg-x"'],
    [`{"nixcache":1,"kind":"root","covers":1}\n{"covers":"${NAME}","record":{}}`, 'line 2: got "entries"'],
    ['{"nixcache":1,"kind":"segment"}', "expected a JSON object"],
  ])("malformed: %j", (text, message) => {
    expect(() => parse(text === "" ? [] : text.split("\n"))).toThrow(message);
  });
});

describe("an entry line", () => {
  const good = formatLine(testEntry("a").line);
  const digest = digestOf("x");
  test.each([
    ["no narinfo", good.replace('"narinfo"', '"narInfo"'), 'expected the text field "narinfo"'],
    ["a narinfo that is none", good.replace("StorePath: ", "StorePath "), "narinfo line 1|line 1"],
    ["no parts", good.replace(/"parts":\[.*\]\]/, '"parts":[]'), "1 to 32768 parts"],
    [
      "parts of another kind",
      good.replace(/"parts":\[.*\]\]/, '"parts":[{"digest":1}]'),
      "expected [digest, size]",
    ],
    ["a digest that is none", good.replace(/sha256:[0-9a-f]{64}/, "sha256:0"), "expected a digest"],
    [
      "a part outside its blob",
      good.replace(/"parts":\[.*\]\]/, `"parts":[["${digest}",10,5,6]]`),
      "outside its blob",
    ],
    ["a negative size", good.replace(/"parts":\[.*\]\]/, `"parts":[["${digest}",-1]]`), "outside its blob"],
    [
      "parts of another length than FileSize",
      good.replace(/"parts":\[.*\]\]/, `"parts":[["${digest}",1]]`),
      "the narinfo says",
    ],
    ["no time", good.replace(/"added":\d+/, '"added":"now"'), "expected seconds"],
    ["a URL elsewhere", good.replace("URL: nar/", "URL: ../"), "expected nar/<file>"],
    ["a URL below nar/", good.replace("URL: nar/", "URL: nar/x/"), "expected nar/<file>"],
  ])("with %s is refused", (_, line, message) => {
    expect(() => parseLine(line, "line 1")).toThrow(new RegExp(message.replace(/[[\]<>/]/g, "\\$&")));
  });
});

describe("LineSplitter", () => {
  test("gives the same lines however the bytes are cut", () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.string({ unit: "grapheme" }).filter((text) => !text.includes("\n")),
          { maxLength: 8 },
        ),
        fc.array(fc.nat(20), { minLength: 1 }),
        (lines, cuts) => {
          const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(""));
          const splitter = new LineSplitter("layer");
          const found: string[] = [];
          for (let at = 0, i = 0; at < bytes.length; i++) {
            const length = cuts[i % cuts.length] || 1;
            found.push(...splitter.push(bytes.subarray(at, at + length)));
            at += length;
          }
          splitter.end();
          expect(found).toEqual(lines);
        },
      ),
      propertyParameters(),
    );
  });

  test("refuses a line that is too long, without holding it", () => {
    const splitter = new LineSplitter("layer");
    const chunk = new Uint8Array(1024 * 1024).fill(97);
    const push = () => {
      for (let i = 0; i <= MAX_LINE_BYTES / chunk.length; i++) [...splitter.push(chunk)];
    };
    expect(push).toThrow(`layer: line 1 is longer than ${MAX_LINE_BYTES} bytes`);
  });

  test("refuses a last line without newline, and text that is not UTF-8", () => {
    const cut = new LineSplitter("layer");
    expect([...cut.push(Buffer.from("a\nb"))]).toEqual(["a"]);
    expect(() => cut.end()).toThrow("ended in the middle of line 2");
    expect(() => [...new LineSplitter("layer").push(Buffer.from([0xff, 10]))]).toThrow("line 1 is not UTF-8");
  });
});

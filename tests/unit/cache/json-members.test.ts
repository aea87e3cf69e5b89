import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type JsonMember, JsonMembers } from "../../../src/cache/json-members.ts";
import { propertyParameters } from "../../support/seed.ts";

function cut(
  text: string | Uint8Array,
  chunk = 1 << 16,
  opened: Record<string, "object" | "list"> = { entries: "object", roots: "list" },
  maxBytes = 1000,
): JsonMember[] {
  const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
  const members = new JsonMembers("test", opened, maxBytes);
  const found: JsonMember[] = [];
  for (let at = 0; at < bytes.length; at += chunk) {
    // As a reader has it that uses its memory again.
    const piece = bytes.slice(at, at + chunk);
    for (const member of members.push(piece)) found.push(member);
    piece.fill(0x78);
  }
  members.end();
  return found;
}

const member = (key: string, value: string | undefined, of?: string): JsonMember => ({ of, key, value });

test.each<[string, string, JsonMember[]]>([
  ["nothing", " {\n} ", []],
  [
    "values of every kind",
    '{"a":1,"b" : "x\\"}{", "c":[1,{"d":"]"}] ,"e":{"f":{}},"g":true,"h":-1.5e3}',
    [
      member("a", "1"),
      member("b", '"x\\"}{"'),
      member("c", '[1,{"d":"]"}]'),
      member("e", '{"f":{}}'),
      member("g", "true"),
      member("h", "-1.5e3"),
    ],
  ],
  [
    "members of some members",
    '{"entries":{"x":{"y":1},"z":"\\\\"},"roots":["a" , 2,[]],"n":{"entries":{"x":1}}}',
    [
      member("x", '{"y":1}', "entries"),
      member("z", '"\\\\"', "entries"),
      member("", '"a"', "roots"),
      member("", "2", "roots"),
      member("", "[]", "roots"),
      member("n", '{"entries":{"x":1}}'),
    ],
  ],
  ["empty ones of these", '{"entries":{},"roots":[ ]}', []],
  ["such that are none", '{"entries":null,"roots":"x"}', [member("entries", "null"), member("roots", '"x"')]],
  ["names with escapes", '{"\\u0065ntries":{"\\"":1}}', [member('"', "1", "entries")]],
])("cuts %s, however the chunks fall", (_, text, expected) => {
  for (const chunk of [1, 2, 3, 7, 1000]) expect(cut(text, chunk)).toEqual(expected);
});

test.each<[string, string, string]>([
  ["nothing at all", "", "got nothing more, expected a JSON object"],
  ["a list", "[]", 'got "[", expected a JSON object'],
  ["an end too early", '{"a":"b"', "got nothing more, expected a comma"],
  ["an end in a value", '{"a":"x', "got nothing more, expected the rest of a value"],
  ["an end in a name", '{"a', "got nothing more, expected the rest of a name"],
  ["an end in a member's member", '{"entries":{"x":1}', "got nothing more, expected a comma"],
  ["no colon", '{"a" 1}', 'got "1", expected a colon'],
  ["no value", '{"a":}', 'got "}", expected a value'],
  ["no comma", '{"a":1 "b":2}', "expected a comma or a closing bracket"],
  ["a comma too many", '{"a":1,}', 'got "}", expected a member'],
  ["a comma too many in a list", '{"roots":[1,]}', 'got "]"'],
  ["a bracket of the other kind", '{"roots":[1}', 'got "}", expected a comma or a closing bracket'],
  ["more behind the end", "{}{", 'got "{", expected its end'],
  ["a name that is none", '{"\\x":1}', "a name in it is not valid JSON"],
  ["a name without quotes", "{a:1}", 'got "a", expected a member'],
])("refuses %s", (_, text, message) => {
  for (const chunk of [1, 1000])
    expect(() => cut(text, chunk)).toThrow(`test: ${message.startsWith("a name") ? "" : "not valid JSON: "}`);
  expect(() => cut(text)).toThrow(message);
});

describe("a member", () => {
  test("that is too long is told without its value, and costs none of the others", () => {
    const text = `{"a":"${"x".repeat(5000)}","entries":{"b":{"c":"${"y".repeat(998)}"},"d":1}}`;
    const expected = [member("a", undefined), member("b", undefined, "entries"), member("d", "1", "entries")];
    for (const chunk of [1, 100, 10_000]) expect(cut(text, chunk)).toEqual(expected);
    expect(cut('{"a":"12345678"}', 3, {}, 10)).toEqual([member("a", '"12345678"')]);
    expect(cut('{"a":"123456789"}', 3, {}, 10)).toEqual([member("a", undefined)]);
  });

  test("that is no UTF-8 is told without its value", () => {
    const bytes = new TextEncoder().encode('{"a":"x","b":1}');
    bytes[6] = 0xff;
    expect(cut(bytes)).toEqual([member("a", undefined), member("b", "1")]);
  });
});

test("any JSON object comes out as JSON.parse has it", () => {
  const objects = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 3 }));
  fc.assert(
    fc.property(
      objects,
      fc.dictionary(fc.string(), fc.jsonValue()),
      fc.nat(3),
      fc.integer({ min: 1, max: 40 }),
      (rest, entries, indent, chunk) => {
        const whole = { ...rest, entries };
        const again: Record<string, unknown> = {};
        const inner: Record<string, unknown> = {};
        for (const { of, key, value } of cut(
          JSON.stringify(whole, null, indent),
          chunk,
          { entries: "object" },
          1 << 20,
        )) {
          Object.defineProperty(of === "entries" ? inner : again, key, {
            value: JSON.parse(value ?? ""),
            enumerable: true,
            configurable: true,
            writable: true,
          });
        }
        Object.assign(again, { entries: inner });
        expect(JSON.parse(JSON.stringify(again))).toEqual(JSON.parse(JSON.stringify(whole)));
      },
    ),
    propertyParameters(),
  );
});

import { describe, expect, test } from "bun:test";
import { decodeRecord, encodeRecord, type PublishRecord, sameLine } from "../../../src/cache/record.ts";
import { digestOf } from "../../../src/oci/digest.ts";

const RECORD: PublishRecord = {
  time: "2026-11-23T17:53:46.000Z",
  tool: "nixcache 0.1.0",
  source: "https://github.com/o/r#main",
  roots: { "packages.x86_64-linux.a": "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a" },
  keys: [],
  content: digestOf("lines"),
  entries: 1,
};

test("a record survives its own writing, with every field", () => {
  const full: PublishRecord = {
    ...RECORD,
    system: "x86_64-linux",
    selection: "flake ./config: packages",
    branch: "main",
    revision: "abc",
    run: "https://github.com/o/r/actions/runs/1",
    partial: true,
    keepDays: 30,
    keepRevisions: 2,
  };
  for (const record of [RECORD, full]) {
    expect(decodeRecord(JSON.parse(JSON.stringify(encodeRecord(record))), "here")).toEqual(record);
  }
});

describe("a record of another version", () => {
  test("loses the fields that this one does not know", () => {
    expect(decodeRecord({ ...RECORD, colour: "green", partial: "no" }, "here")).toEqual(RECORD);
  });

  test.each(["time", "tool", "source", "roots", "keys", "content", "entries"])("needs its %s", (field) => {
    const { [field as "time"]: _, ...rest } = RECORD;
    expect(() => decodeRecord(rest, "here")).toThrow("here");
  });

  test.each(["system", "selection", "branch", "revision", "run"])("has a text as its %s, if any", (field) => {
    expect(() => decodeRecord({ ...RECORD, [field]: 1 }, "here")).toThrow(
      `here: got "${field}": 1, expected a text`,
    );
  });
});

test.each(["keepDays", "keepRevisions"])("%s, if any, is a count", (field) => {
  for (const value of [0, -1, 1.5, "1", null, 2 ** 60])
    expect(() => decodeRecord({ ...RECORD, [field]: value }, "here")).toThrow(`here: got "${field}"`);
});

describe("generations of one line", () => {
  const other = { b: "/nix/store/1123456789abcdfghijklmnpqrsvwxyz-b" };
  test.each<[string, Partial<PublishRecord>, Partial<PublishRecord>, boolean]>([
    ["have the same roots by name", {}, { revision: "def" }, true],
    ["are of one system", { system: "x86_64-linux" }, { system: "aarch64-linux" }, false],
    ["are of one source", {}, { source: "paths" }, false],
    ["differ by their roots where no selection is known", {}, { roots: other }, false],
    [
      "may differ in roots when the selection is the same",
      { selection: "s" },
      { selection: "s", roots: other },
      true,
    ],
    ["are of one selection", { selection: "s" }, { selection: "t" }, false],
    ["of a pin are all those of its name", { source: "pin:a" }, { source: "pin:a", roots: other }, true],
    ["are of one pin", { source: "pin:a" }, { source: "pin:b" }, false],
    ["may be partial", { selection: "s" }, { selection: "s", partial: true }, true],
  ])("%s", (_, a, b, expected) => {
    expect(sameLine({ ...RECORD, ...a }, { ...RECORD, ...b })).toBe(expected);
    expect(sameLine({ ...RECORD, ...b }, { ...RECORD, ...a })).toBe(expected);
  });
});

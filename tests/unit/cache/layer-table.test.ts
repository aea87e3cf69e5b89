/** The table of a layer's lines: found by key, in the order of store hashes, and read back as it was written. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  decodeTable,
  encodeTable,
  FOOTER_BYTES,
  fileKey,
  firstRank,
  hashKey,
  type LayerTable,
  ranksOfFile,
  TableBuilder,
  tableOffset,
} from "../../../src/cache/layer-table.ts";
import { BASE32_ALPHABET } from "../../../src/nar/base32.ts";
import { propertyParameters } from "../../support/seed.ts";

const hash = fc
  .array(fc.constantFrom(...BASE32_ALPHABET), { minLength: 32, maxLength: 32 })
  .map((digits) => digits.join(""));
/** With few that differ in their key. */
const nearHash = hash.map((text) => `0123456789${text.slice(10)}`);
const hashes = fc.uniqueArray(fc.oneof(hash, nearHash), { maxLength: 60 });

/** A line for each hash, whose place in the list is its offset; its NAR has its name. */
function tableOf(names: readonly string[], most?: number): LayerTable {
  const builder = new TableBuilder();
  for (const [place, name] of names.entries()) builder.add(hashKey(name), place, 10 + place, fileKey(name));
  return builder.finish((offset) => names[offset] as string, most);
}

describe("a table", () => {
  test("keys have the order of store hashes", () => {
    fc.assert(
      fc.property(hash, hash, (a, b) => {
        if (a.slice(0, 10) !== b.slice(0, 10)) expect(hashKey(a) < hashKey(b)).toBe(a < b);
        else expect(hashKey(a)).toBe(hashKey(b));
      }),
      propertyParameters(),
    );
    expect(hashKey("z".repeat(32))).toBe(32 ** 10 - 1);
    expect(Number.isSafeInteger(hashKey("z".repeat(32)))).toBe(true);
    expect([hashKey(""), hashKey("0".repeat(32))]).toEqual([0, 0]);
  });

  test("has lines in the order of their hashes, whatever their order in the text; of the same hash the last", () => {
    const lines = fc.array(fc.oneof(hash, nearHash, fc.constant("0".repeat(32))), { maxLength: 60 });
    fc.assert(
      fc.property(lines, (names) => {
        const table = tableOf(names);
        const expected = [...new Set(names)].sort().map((name) => names.lastIndexOf(name));
        expect([...table.offsets]).toEqual(expected);
        expect([...table.lengths]).toEqual(expected.map((place) => 10 + place));
      }),
      propertyParameters(),
    );
  });

  test("has of each hash as many lines as are wanted, the last ones, in their order", () => {
    const few = fc.constantFrom("0".repeat(32), `${"0".repeat(31)}1`, "1".repeat(32));
    fc.assert(
      fc.property(fc.array(few, { maxLength: 20 }), fc.integer({ min: 1, max: 4 }), (names, most) => {
        const places = Map.groupBy(names.keys(), (place) => names[place] as string);
        const expected = [...places.keys()].sort().flatMap((name) => (places.get(name) ?? []).slice(-most));
        expect([...tableOf(names, most).offsets]).toEqual(expected);
      }),
      propertyParameters(),
    );
  });

  test("finds the first rank of each key, and where those would be that it lacks", () => {
    fc.assert(
      fc.property(hashes, fc.array(fc.oneof(hash, nearHash)), (names, others) => {
        const table = tableOf(names);
        for (const name of [...names, ...others]) {
          const expected = table.keys.findIndex((key) => key >= hashKey(name));
          expect(firstRank(table, hashKey(name))).toBe(expected === -1 ? names.length : expected);
        }
      }),
      propertyParameters(),
    );
  });

  test("finds many evenly spread keys, and many that are all near one end", () => {
    for (const spread of [1, 1e-6]) {
      const keys = Float64Array.from({ length: 5000 }, (_, i) => Math.floor((i * spread * 32 ** 10) / 5000));
      const table = { keys } as LayerTable;
      for (let rank = 0; rank < keys.length; rank++)
        expect(firstRank(table, keys[rank] as number)).toBe(rank);
      expect(firstRank(table, 32 ** 10)).toBe(keys.length);
    }
  });

  test("finds lines by the file name of their NAR", () => {
    fc.assert(
      fc.property(hashes, (names) => {
        const table = tableOf(names);
        for (const [place, name] of names.entries()) {
          const found = [...ranksOfFile(table, fileKey(name))].map((rank) => table.offsets[rank]);
          expect(found).toContain(place);
        }
        expect([...ranksOfFile(table, fileKey("another file"))]).toEqual([]);
      }),
      propertyParameters(),
    );
  });

  test("is read back as it was written, wherever it stands in memory", () => {
    fc.assert(
      fc.property(hashes, fc.nat(1000), (names, place) => {
        const table = tableOf(names);
        const bytes = encodeTable(table, place * 8);
        const footer = bytes.slice(-FOOTER_BYTES);
        expect(tableOffset(footer, place * 8 + bytes.length, "test")).toBe(place * 8);
        expect(decodeTable(new Uint8Array(bytes), "test")).toEqual(table);
      }),
      propertyParameters(),
    );
  });

  test("that was changed is corrupt", () => {
    const bytes = encodeTable(tableOf(["0".repeat(32), "1".repeat(32)]), 16);
    const isAccepted = (changed: Uint8Array<ArrayBuffer>): boolean => {
      tableOffset(changed.slice(-FOOTER_BYTES), 16 + changed.length, "test");
      decodeTable(changed, "test");
      return true;
    };
    expect(isAccepted(new Uint8Array(bytes))).toBe(true);
    for (let at = 0; at < bytes.length; at++) {
      const changed = new Uint8Array(bytes);
      changed[at] = (changed[at] as number) ^ 0x11;
      expect(() => isAccepted(changed)).toThrow(/^test: /);
    }
    expect(() => tableOffset(bytes.slice(-FOOTER_BYTES), bytes.length, "test")).toThrow("as it was written");
  });
});

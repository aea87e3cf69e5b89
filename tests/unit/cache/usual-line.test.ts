/** The usual line of an index layer: told by one expression, and the same as what parsing everything gives. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type EntryLine, encodeEntry, formatLine, parseLine } from "../../../src/cache/entry.ts";
import { parseUsualLine } from "../../../src/cache/usual-line.ts";
import { NixcacheError } from "../../../src/errors.ts";
import { encodeBase32 } from "../../../src/nar/base32.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { storeHash } from "../../support/protocol.ts";
import { propertyParameters } from "../../support/seed.ts";

const HASH = `sha256:${encodeBase32(new Uint8Array(32).fill(9))}`;
const BLOB = digestOf("blob");

function lineOf(options: {
  name?: string;
  references?: readonly string[];
  sigs?: string[];
  deriver?: string;
  part?: { size: number; offset: number; length: number };
  listing?: boolean;
  added?: number;
}): string {
  const { name = "hello", references = [], part = { size: 9, offset: 2, length: 5 } } = options;
  const base = (text: string) => `${storeHash(text)}-${text}`;
  return formatLine(
    encodeEntry({
      info: {
        ...{
          storePath: `/nix/store/${base(name)}`,
          url: `nar/${HASH.slice(7)}.nar.zst`,
          compression: "zstd",
        },
        ...{ fileHash: HASH, fileSize: part.length, narHash: HASH, narSize: 120 },
        references: references.map(base).sort(),
        sigs: options.sigs ?? [],
        ...(options.deriver !== undefined && { deriver: base(options.deriver) }),
      },
      parts: [{ blob: BLOB, ...part }],
      ...(options.listing && { listing: { blob: BLOB, size: 9, offset: 7, length: 2 } }),
      added: options.added ?? 1_700_000_000,
    }),
  );
}

/** What reading the line slowly gives, or undefined where that refuses it. */
function slowly(text: string): EntryLine | undefined {
  try {
    return parseLine(text, "test");
  } catch (error) {
    if (error instanceof NixcacheError) return undefined;
    throw error;
  }
}

const NAME = fc.stringMatching(/^[0-9A-Za-z+._?=-]{1,30}$/);

describe("the usual line", () => {
  test("is what publish writes, and means the same", () => {
    const property = fc.property(
      NAME,
      fc.array(NAME, { maxLength: 5 }),
      fc.array(fc.stringMatching(/^[a-z.]{1,9}-1:[0-9A-Za-z+/]{10}==$/), { maxLength: 3 }),
      fc.option(NAME, { nil: undefined }),
      fc.boolean(),
      fc.nat(2 ** 31),
      (name, references, sigs, deriver, listing, added) => {
        const options = {
          name,
          references: [...new Set(references)],
          sigs: [...new Set(sigs)],
          listing,
          added,
        };
        const text = lineOf({ ...options, ...(deriver !== undefined && { deriver: `${deriver}.drv` }) });
        const found = parseUsualLine(text);
        expect(found).toBeDefined();
        expect(found).toEqual(slowly(text) as EntryLine);
      },
    );
    fc.assert(property, propertyParameters());
  });

  test("whatever is changed in it, it is told as before or not at all", () => {
    const original = lineOf({ references: ["a", "b"], sigs: ["k-1:AAAA"], deriver: "x.drv", listing: true });
    const property = fc.property(
      fc.nat(original.length),
      fc.nat(3),
      fc.oneof(
        fc.string({ maxLength: 3 }),
        fc.constantFrom("\\n", "\\u000a", "0", ",", '"', "e", " ", "\\\\"),
      ),
      (at, removed, inserted) => {
        const text = original.slice(0, at) + inserted + original.slice(at + removed);
        const found = parseUsualLine(text);
        if (found !== undefined) expect(found).toEqual(slowly(text) as EntryLine);
      },
    );
    fc.assert(property, { ...propertyParameters(), numRuns: 20_000 });
  });

  const usual = lineOf({ references: ["a"], sigs: ["k-1:AAAA"], listing: true });
  test.each([
    ["another compression", usual.replace("Compression: zstd", "Compression: xz")],
    ["a size that its part has not", usual.replace("FileSize: 5", "FileSize: 6")],
    ["a part outside of its blob", usual.replace(",9,2,5]", ",6,2,5]")],
    ["an empty part", usual.replace(",9,2,5]", ",9,2,0]").replace("FileSize: 5", "FileSize: 0")],
    ["a listing outside of its blob", usual.replace(",9,7,2]", ",9,8,2]")],
    ["an empty NAR", usual.replace("NarSize: 120", "NarSize: 0")],
    ["a number with a zero before it", usual.replace('"added":1', '"added":01')],
    ["a hash of 33 bytes", usual.replace("NarHash: sha256:0", "NarHash: sha256:9")],
    ["two parts", usual.replace('"parts":[[', `"parts":[["${BLOB}",9],[`)],
    ["a field of a later version", usual.replace(/\}$/, ',"later":1}')],
    ["a character that is no ASCII", usual.replace("k-1:", "é-1:")],
    ["a blank line", usual.replace("\\nSig", "\\n\\nSig")],
  ])("leaves %s to others", (_, text) => {
    expect(text).not.toBe(usual);
    expect(parseUsualLine(usual)).toBeDefined();
    expect(parseUsualLine(text)).toBeUndefined();
  });
});

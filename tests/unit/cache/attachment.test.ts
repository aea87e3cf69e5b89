import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  type Attachment,
  type Attachments,
  decodeAttachments,
  encodeAttachments,
  isAttachedPath,
  MAX_ATTACHMENTS,
  MAX_TEXT_BYTES,
} from "../../../src/cache/attachment.ts";
import {
  allParts,
  encodeEntry,
  entryOf,
  formatLine,
  parseLine,
  withoutFiles,
} from "../../../src/cache/entry.ts";
import { blobsOf } from "../../../src/cache/manifests.ts";
import type { Part } from "../../../src/cache/part.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { testEntry } from "../../support/protocol.ts";
import { propertyParameters } from "../../support/seed.ts";

const part = (name: string): Part => ({ blob: digestOf(name), size: 900, offset: 100, length: 50 });

describe("a path of an attached file", () => {
  test.each([
    ["log/0123456789abcdfghijklmnpqrsvwxyz-hello-2.12.drv", true],
    [`realisations/sha256:${"ab".repeat(32)}!out.doi`, true],
    ["build-trace-v2/0123456789abcdfghijklmnpqrsvwxyz-a.drv/out.doi", true],
    ["debuginfo/483bd7f7229bdb06462222e1e353e4f37e15c293", true],
    ["log", false],
    ["log/", false],
    ["log/../x", false],
    ["log/.x", false],
    ["log/a b", false],
    ["log/a/b/c", false],
    ["log/a%2fb", false],
    ["log/a\n", false],
    ["nar/x.nar", false],
    ["/log/x.drv", false],
    [`log/${"x".repeat(600)}`, false],
  ])("%j: %p", (path, good) => {
    expect(isAttachedPath(path)).toBe(good);
  });
});

describe("attached files", () => {
  test("have this form in a line", () => {
    const attachments = { "log/a.drv": { part: part("x") }, "realisations/b!out.doi": { text: "{}" } };
    expect(encodeAttachments(attachments)).toEqual({
      "log/a.drv": { part: [digestOf("x"), 900, 100, 50] },
      "realisations/b!out.doi": { text: "{}" },
    });
  });

  const attachment: fc.Arbitrary<Attachment> = fc.oneof(
    fc.string({ unit: "binary", maxLength: 50 }).map((text) => ({ text })),
    fc
      .record({ offset: fc.nat(), length: fc.integer({ min: 1, max: 1e9 }), after: fc.nat() })
      .map(({ offset, length, after }) => ({
        part: { blob: digestOf("x"), size: offset + length + after, offset, length },
      })),
  );
  const attachments: fc.Arbitrary<Attachments> = fc.dictionary(
    fc.stringMatching(/^(log|realisations)\/[a-z0-9][a-zA-Z0-9._+?=!:-]{0,20}$/),
    attachment,
    { minKeys: 1, maxKeys: MAX_ATTACHMENTS, noNullPrototype: true },
  );

  test("come back from JSON as they were", () => {
    fc.assert(
      fc.property(attachments, (value) => {
        const json = JSON.parse(JSON.stringify(encodeAttachments(value)));
        expect(decodeAttachments(json, "here")).toEqual(value);
      }),
      propertyParameters(),
    );
  });

  test.each<[string, unknown, string]>([
    ["nothing", null, 'here, "attached": got null'],
    ["a list", [], "expected a JSON object"],
    ["no files", {}, "got 0 attached files, expected 1 to 32"],
    [
      "too many",
      Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`log/${i}`, { text: "" }])),
      "got 33 attached files",
    ],
    ["a path elsewhere", { "nar/x": { text: "" } }, 'got the attached file "nar/x", expected a path such as'],
    ["a path that climbs", { "log/../x": { text: "" } }, "got the attached file"],
    ["a file that is none", { "log/x": "text" }, "here, attached file log/x: got"],
    ["a file of nothing", { "log/x": {} }, 'got {}, expected a "text" or a "part"'],
    ["both", { "log/x": { text: "", part: ["x"] } }, 'expected a "text" or a "part"'],
    ["a text that is none", { "log/x": { text: 1 } }, 'expected a "text" or a "part"'],
    ["a part that is none", { "log/x": { part: ["x"] } }, "log/x: got the part"],
    [
      "a text that is too long",
      { "log/x": { text: "ä".repeat(MAX_TEXT_BYTES / 2 + 1) } },
      "expected at most 65536",
    ],
  ])("%s: refused", (_, value, message) => {
    expect(() => decodeAttachments(value, "here")).toThrow(message);
  });
});

describe("an entry", () => {
  const { line, blob } = testEntry("a");
  const entry = {
    ...entryOf(line),
    listing: part("listing"),
    attached: { "log/a.drv": { part: part("log") }, "realisations/b!out.doi": { text: "{}" } },
  };

  test("with a listing and attached files comes back as it was", () => {
    const text = formatLine(encodeEntry(entry));
    expect(entryOf(parseLine(text, "line"))).toEqual(entry);
    expect(formatLine(parseLine(text, "line"))).toBe(text);
  });

  test("names the blobs of all of them", () => {
    expect(blobsOf([encodeEntry(entry)]).map(({ digest }) => digest)).toEqual([
      blob.digest,
      digestOf("listing"),
      digestOf("log"),
    ]);
    expect(allParts(entryOf(line))).toEqual([...entryOf(line).parts]);
  });

  test("without them has the line that it always had", () => {
    expect(Object.keys(JSON.parse(line.rest))).toEqual(["parts", "added"]);
  });

  test("loses those that it is to lose, and keeps what later versions say", () => {
    const later = parseLine(formatLine(encodeEntry(entry)).replace(/}$/, ',"later":[1]}'), "line");
    const mended = withoutFiles(later, new Set(["listing", "log/a.drv"]));
    expect(JSON.parse(mended.rest)).toEqual({
      ...JSON.parse(line.rest),
      later: [1],
      attached: { "realisations/b!out.doi": { text: "{}" } },
    });
    const none = withoutFiles(later, new Set(["log/a.drv", "realisations/b!out.doi"]));
    expect(Object.keys(JSON.parse(none.rest))).toEqual(["parts", "added", "later", "listing"]);
  });

  test.each([
    ["a listing", { listing: {} }],
    ["a listing in more parts", { listing: [[digestOf("x"), 1]] }],
    ["attached files", { attached: { x: 1 } }],
  ])("with %s of another kind is refused", (_, fields) => {
    const text = JSON.stringify({ narinfo: line.narinfo, ...JSON.parse(line.rest), ...fields });
    expect(() => parseLine(text, "line 7")).toThrow("line 7");
  });
});

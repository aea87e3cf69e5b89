import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { contentRange, isNotModified, requestedRange } from "../../../src/serve/range.ts";
import { propertyParameters } from "../../support/seed.ts";

const ETAG = '"sha256:abc"';
const range = (text: string, size: number, ifRange?: string) =>
  requestedRange(new Headers({ range: text, ...(ifRange && { "if-range": ifRange }) }), size, ETAG);

describe("a Range", () => {
  test.each<[string, number, [offset: number, length: number] | "unsatisfiable" | undefined]>([
    ["bytes=0-0", 10, [0, 1]],
    ["bytes=0-9", 10, [0, 10]],
    ["bytes=3-", 10, [3, 7]],
    ["bytes=9-", 10, [9, 1]],
    ["bytes=-3", 10, [7, 3]],
    ["bytes=-10", 10, [0, 10]],
    ["bytes=-11", 10, [0, 10]],
    ["bytes=5-100", 10, [5, 5]],
    ["bytes=5-99999999999999999999999", 10, [5, 5]],
    ["BYTES=1-2", 10, [1, 2]],
    ["bytes= 1-2 ", 10, [1, 2]],
    ["bytes=007-8", 10, [7, 2]],
    ["bytes=10-", 10, "unsatisfiable"],
    ["bytes=10-11", 10, "unsatisfiable"],
    ["bytes=99999999999999999999999-", 10, "unsatisfiable"],
    ["bytes=-0", 10, "unsatisfiable"],
    ["bytes=0-", 0, "unsatisfiable"],
    ["bytes=-1", 0, "unsatisfiable"],
    // Several, and what is none: the whole.
    ["bytes=0-1,3-4", 10, undefined],
    ["bytes=0-1,", 10, undefined],
    ["bytes=5-4", 10, undefined],
    ["bytes=-", 10, undefined],
    ["bytes=", 10, undefined],
    ["bytes", 10, undefined],
    ["bytes=1", 10, undefined],
    ["bytes=a-b", 10, undefined],
    ["bytes=1-2x", 10, undefined],
    ["bytes=+1-2", 10, undefined],
    ["bytes=1.0-2", 10, undefined],
    ["bytes=--3", 10, undefined],
    ["bytes =1-2", 10, undefined],
    ["lines=1-2", 10, undefined],
    ["0-1", 10, undefined],
  ])("%p of %d bytes", (text, size, expected) => {
    const found = range(text, size);
    expect(typeof found === "object" ? [found.offset, found.length] : found).toEqual(expected);
  });

  test("without one the whole is asked for", () => {
    expect(requestedRange(new Headers(), 10, ETAG)).toBeUndefined();
  });

  test("lies within the size, whatever is asked for, and is what slice gives", () => {
    const number = fc.oneof(fc.nat(30).map(String), fc.constant(""), fc.bigInt({ min: 0n }).map(String));
    fc.assert(
      fc.property(number, number, fc.nat(20), (first, last, size) => {
        const found = range(`bytes=${first}-${last}`, size);
        const bytes = Array.from({ length: size }, (_, i) => i);
        if (found === undefined) {
          expect((first === "" && last === "") || (last !== "" && Number(last) < Number(first))).toBe(true);
        } else if (found === "unsatisfiable") {
          expect(first === "" ? Number(last) * size : Math.max(0, size - Number(first))).toBe(0);
        } else {
          const { offset, length } = found;
          const from = first === "" ? Math.max(0, size - Number(last)) : Number(first);
          const to = first === "" || last === "" ? size : Number(last) + 1;
          expect(bytes.slice(offset, offset + length)).toEqual(bytes.slice(from, to));
          expect(length).toBeGreaterThan(0);
        }
      }),
      propertyParameters(),
    );
  });

  test("never throws on any text", () => {
    fc.assert(
      fc.property(fc.string(), fc.nat(), (text, size) => {
        const found = requestedRange({ get: (name) => (name === "range" ? text : null) }, size, undefined);
        if (typeof found === "object") expect(found.offset + found.length).toBeLessThanOrEqual(size);
      }),
      propertyParameters(),
    );
  });

  test.each([
    [ETAG, true],
    [` ${ETAG} `, true],
    ['"sha256:abd"', false],
    [`W/${ETAG}`, false],
    ["sha256:abc", false],
    ["Mon, 23 Nov 2026 00:00:00 GMT", false],
  ])("with If-Range %p counts: %p", (condition, counts) => {
    expect(range("bytes=1-2", 10, condition)).toEqual(counts ? { offset: 1, length: 2 } : undefined);
    expect(
      requestedRange(new Headers({ range: "bytes=1-2", "if-range": condition }), 10, undefined),
    ).toBeUndefined();
  });

  test("is stated in Content-Range", () => {
    expect(contentRange({ offset: 5, length: 10 }, 100)).toBe("bytes 5-14/100");
    expect(contentRange(undefined, 100)).toBe("bytes */100");
  });
});

test.each([
  [ETAG, true],
  ["*", true],
  [`W/${ETAG}`, true],
  [`"x", ${ETAG},"y"`, true],
  ['"x"', false],
  ["", false],
  ["sha256:abc", false],
])("If-None-Match %p: %p", (text, expected) => {
  expect(isNotModified(new Headers({ "if-none-match": text }), ETAG)).toBe(expected);
  expect(isNotModified(new Headers(), ETAG)).toBe(false);
});

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  type ContentAddress,
  contentAddressStorePath,
  formatContentAddress,
  isContentAddressed,
  parseContentAddress,
} from "../../../src/nar/content-address.ts";
import { HASH_SIZES, isHashAlgorithm } from "../../../src/nar/hash.ts";
import { parseBaseName, parseStorePath } from "../../../src/nar/store-path.ts";
import { propertyParameters } from "../../support/seed.ts";
import { fixtureText, thrownBy } from "./fixtures.ts";

/** The store directory of the fixture. */
const STORE = "/tmp/nixcache-nar-fixtures/private/store";
const SHA256 = `sha256:1${"b".repeat(51)}`;

interface PathInfo {
  path: string;
  references: string[];
  ca?: string;
}

const objects = (JSON.parse(fixtureText("content-addresses.json")) as PathInfo[]).flatMap((info) =>
  info.ca === undefined ? [] : [{ ...info, ca: info.ca }],
);

describe("content addresses that Nix made", () => {
  test("the fixture has every kind", () => {
    const kinds = new Set(objects.map(({ ca }) => ca.slice(0, ca.lastIndexOf(":"))));
    expect([...kinds].sort()).toEqual(
      ["md5", "sha1", "sha256", "sha512"]
        .flatMap((name) => [`fixed:${name}`, `fixed:r:${name}`])
        .concat("text:sha256")
        .sort(),
    );
    expect(objects.some(({ path, references }) => references.includes(path) && references.length > 1)).toBe(
      true,
    );
    expect(objects.some(({ ca, references }) => ca.startsWith("text:") && references.length > 3)).toBe(true);
  });

  test.each(objects.map((info) => [info.ca, info] as const))("%s", (ca, info) => {
    const address = parseContentAddress(ca, "test");
    expect(formatContentAddress(address)).toBe(ca);
    const own = parseStorePath(info.path, STORE);
    const others = info.references
      .filter((path) => path !== info.path)
      .map((path) => parseStorePath(path, STORE).baseName);
    const references = { others: others.reverse(), self: others.length < info.references.length };
    expect(contentAddressStorePath(own.name, address, references, STORE)).toBe(info.path);
    const names = info.references.map((path) => parseStorePath(path, STORE).baseName);
    expect(isContentAddressed({ storePath: info.path, references: names, ca }, STORE)).toBe(true);
    const more = [...names, `${"0".repeat(32)}-more`];
    expect(isContentAddressed({ storePath: info.path, references: more, ca }, STORE)).toBe(false);
  });
});

describe("content addresses", () => {
  test.each([
    ["git", `fixed:git:${SHA256}`],
    ["nar", `fixed:r:blake3:1${"b".repeat(51)}`],
    ["flat", "fixed:sha1:fd540npwk7x370s4s2jzpx74wf365jjm"],
  ] as const)("%s: %s", (method, text) => {
    const address = parseContentAddress(text, "test");
    expect(address.method).toBe(method);
    expect(formatContentAddress(address)).toBe(text);
  });

  test.each([
    ["", "a content address"],
    [SHA256, "a content address"],
    [`source:${SHA256}`, "a content address"],
    [`Fixed:${SHA256}`, "a content address"],
    ["text:", "a hash"],
    ["text:md5:4yplxll7378zdi27ns7n4glkkn", "expected sha256"],
    [`text:r:${SHA256}`, "a hash"],
    ["fixed:", "a hash"],
    [`fixed:x:${SHA256}`, "a hash"],
    [`fixed:r:r:${SHA256}`, "a hash"],
    [`fixed:r:${SHA256}0`, "32 bytes"],
  ])("%j is refused", (text, expected) => {
    const error = thrownBy(() => parseContentAddress(text, "CA of x"));
    expect(error.code).toBe("corrupt");
    expect(error.message).toStartWith("CA of x: ");
    expect(error.message).toContain(expected);
  });

  test("references where there can be none", () => {
    const self = { others: [], self: true };
    const other = { others: [`${"0".repeat(32)}-x`], self: false };
    const flat = parseContentAddress(`fixed:${SHA256}`, "test");
    const text = parseContentAddress(`text:${SHA256}`, "test");
    expect(thrownBy(() => contentAddressStorePath("a", flat, self)).code).toBe("nix-store");
    expect(thrownBy(() => contentAddressStorePath("a", flat, other)).code).toBe("nix-store");
    expect(thrownBy(() => contentAddressStorePath("a", text, self)).code).toBe("nix-store");
    const storePath = contentAddressStorePath("a", flat);
    const references = [parseStorePath(storePath).baseName];
    expect(isContentAddressed({ storePath, references, ca: `fixed:${SHA256}` })).toBe(false);
  });

  test("names and references that are none", () => {
    const address = parseContentAddress(`fixed:r:${SHA256}`, "test");
    expect(thrownBy(() => contentAddressStorePath("a b", address)).code).toBe("nix-store");
    expect(thrownBy(() => contentAddressStorePath("a", address, { others: ["x"], self: false })).code).toBe(
      "nix-store",
    );
  });

  test("without ca, or with one that is none, a path is not content-addressed", () => {
    const storePath = `/nix/store/${"0".repeat(32)}-a`;
    expect(isContentAddressed({ storePath, references: [] })).toBe(false);
    expect(isContentAddressed({ storePath, references: [], ca: "nonsense" })).toBe(false);
  });

  test("round trip of any content address, and its path is a store path", () => {
    const algorithms = Object.keys(HASH_SIZES).filter(isHashAlgorithm);
    const address: fc.Arbitrary<ContentAddress> = fc
      .tuple(fc.constantFrom("text", "flat", "nar", "git"), fc.constantFrom(...algorithms))
      .map(
        ([method, algorithm]) => ({ method, algorithm: method === "text" ? "sha256" : algorithm }) as const,
      )
      .chain(({ method, algorithm }) => {
        const size = HASH_SIZES[algorithm];
        const bytes = fc.uint8Array({ minLength: size, maxLength: size });
        return bytes.map((value) => ({ method, hash: { algorithm, bytes: value } }));
      });
    fc.assert(
      fc.property(address, (value) => {
        expect(parseContentAddress(formatContentAddress(value), "test")).toEqual(value);
        const path = contentAddressStorePath("name", value);
        expect(parseBaseName(parseStorePath(path).baseName).name).toBe("name");
      }),
      propertyParameters(),
    );
  });
});

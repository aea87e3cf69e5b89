import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { BASE32_ALPHABET } from "../../../src/nar/base32.ts";
import {
  isBaseName,
  isStoreHash,
  MAX_STORE_NAME_LENGTH,
  parseBaseName,
  parseStorePath,
  storeHashOf,
} from "../../../src/nar/store-path.ts";
import { propertyParameters } from "../../support/seed.ts";
import { thrownBy } from "./fixtures.ts";

const HASH = "wf4g74xjbq3ydx7jy999w0d4snm358lb";

describe("store paths", () => {
  // Names with a leading period: Nix 2.8.0 made a store path of each of these (`nix store add-file --name`).
  test.each([
    "hello-2.12.1",
    "a",
    "A+-._?=z0",
    ".",
    "..",
    "...",
    ".-x",
    "..-x",
    ".hidden",
    "-x",
    "x".repeat(211),
  ])("name %j", (name) => {
    const path = `/nix/store/${HASH}-${name}`;
    const expected = { path, baseName: `${HASH}-${name}`, hash: HASH, name };
    expect(parseStorePath(path)).toEqual(expected);
    expect(parseBaseName(expected.baseName)).toEqual(expected);
    expect(isBaseName(expected.baseName)).toBe(true);
    expect(storeHashOf(path)).toBe(HASH);
    expect(storeHashOf(expected.baseName)).toBe(HASH);
  });

  test("another store directory", () => {
    const path = `/tmp/s/${HASH}-a`;
    expect(parseStorePath(path, "/tmp/s")).toEqual({ path, baseName: `${HASH}-a`, hash: HASH, name: "a" });
    expect(parseBaseName(`${HASH}-a`, "/tmp/s").path).toBe(path);
    expect(storeHashOf(path)).toBe(HASH);
    expect(thrownBy(() => parseStorePath(path)).message).toContain("expected a path /nix/store/");
  });

  test.each([
    ["", "a path /nix/store/"],
    ["/nix/store", "a path /nix/store/"],
    ["/nix/store/", "32 characters"],
    [`/nix/storex/${HASH}-a`, "a path /nix/store/"],
    [`nix/store/${HASH}-a`, "a path /nix/store/"],
    [`//nix/store/${HASH}-a`, "a path /nix/store/"],
    [`/nix/store//${HASH}-a`, "32 characters"],
    [`/nix/store/${HASH}`, "a dash"],
    [`/nix/store/${HASH}.a`, "a dash"],
    [`/nix/store/${HASH}0-a`, "a dash"],
    [`/nix/store/${HASH}-`, "a name of 1 to 211"],
    [`/nix/store/${HASH}-${"x".repeat(212)}`, "a name of 1 to 211"],
    [`/nix/store/${HASH}-a/bin`, "only letters"],
    [`/nix/store/${HASH}-a b`, "only letters"],
    [`/nix/store/${HASH}-a\n`, "only letters"],
    [`/nix/store/${HASH}-é`, "only letters"],
    [`/nix/store/${HASH}-a!out`, "only letters"],
    [`/nix/store/${HASH}-a\0`, "only letters"],
    [`/nix/store/${HASH.toUpperCase()}-a`, "32 characters"],
    [`/nix/store/${HASH.replace("w", "e")}-a`, "32 characters"],
    [`/nix/store/${HASH.slice(1)}-a`, "32 characters"],
  ])("%j is refused", (path, expected) => {
    const error = thrownBy(() => parseStorePath(path));
    expect(error.code).toBe("nix-store");
    expect(error.message).toStartWith(`store path: got ${JSON.stringify(path)}`.slice(0, 200));
    expect(error.message).toContain(expected);
  });

  test.each(["", "/", "x", `/nix/store/${HASH}-a/`, `${HASH}-a/bin`])("no hash in %j", (text) => {
    expect(thrownBy(() => storeHashOf(text)).code).toBe("nix-store");
  });

  test("isStoreHash", () => {
    expect(isStoreHash(HASH)).toBe(true);
    for (const text of ["", HASH.slice(1), `${HASH}0`, HASH.toUpperCase(), HASH.replace("4", "u")]) {
      expect(isStoreHash(text)).toBe(false);
    }
  });

  test("round trip of any valid base name", () => {
    const characters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+-._?=";
    const text = (alphabet: string, minLength: number, maxLength: number) =>
      fc.string({ unit: fc.constantFrom(...alphabet), minLength, maxLength });
    fc.assert(
      fc.property(text(BASE32_ALPHABET, 32, 32), text(characters, 1, MAX_STORE_NAME_LENGTH), (hash, name) => {
        const parsed = parseBaseName(`${hash}-${name}`);
        expect(parsed).toEqual({
          path: `/nix/store/${hash}-${name}`,
          baseName: `${hash}-${name}`,
          hash,
          name,
        });
        expect(parseStorePath(parsed.path)).toEqual(parsed);
      }),
      propertyParameters(),
    );
  });
});

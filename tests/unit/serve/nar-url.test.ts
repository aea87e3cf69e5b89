import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { parseNarInfo } from "../../../src/nar/narinfo.ts";
import { withReachableUrl } from "../../../src/serve/nar-url.ts";
import { route } from "../../../src/serve/route.ts";
import { storeHash } from "../../support/protocol.ts";
import { propertyParameters } from "../../support/seed.ts";

const ID = "0123456789abcdef".repeat(2);

/** Paths that an id was asked for. */
const named: string[] = [];
const FIRST = {
  isFirst: true,
  idOf: (path: string) => {
    named.push(path);
    return ID;
  },
};
const LATER = { ...FIRST, isFirst: false };

const narinfo = (url: string) =>
  `StorePath: /nix/store/${storeHash("u")}-u\nURL: ${url}\nCompression: none\nNarHash: sha256:${"0".repeat(52)}\n` +
  "NarSize: 1\nReferences: \nSig: k:c2ln\n";

describe("the URL of an upstream's narinfo", () => {
  test.each([
    ["cache.nixos.org", "nar/1w1fff338fvdw53sqgamddn1b2xgds473pv6y13gizdbqjv4i5p3.nar.xz"],
    ["nix-serve", `nar/${storeHash("u")}-${"0".repeat(52)}.nar`],
    ["an absolute one", "https://storage.example.org/a/../b.nar?x=%2F"],
  ])("stays as it is where it works as it is: %s", (_, url) => {
    expect(withReachableUrl(narinfo(url), FIRST)).toEqual({ text: narinfo(url), url });
  });

  test.each([
    ["another folder", "files/x.nar.xz", "files/x.nar.xz"],
    ["the top", "x.nar", "x.nar"],
    ["a folder in nar/", "nar/ab/x.nar?y=/../z", "nar/ab/x.nar?y=/../z"],
    ["escapes", "nar/a%2Bb%20c.nar", "nar/a+b%20c.nar"],
    ["nixcache itself", `from/${ID}/x.nar`, `from/${ID}/x.nar`],
    ["harmonia", "nar/x.nar?hash=y", "nar/x.nar?hash=y"],
    ["what looks like a route of ours", "nix-cache-info", "nix-cache-info"],
    ["$-patterns of replace", "a/$&$1.nar", "a/$&$1.nar"],
  ])("gets a prefix where it does not: %s", (_, url, path) => {
    const { text, url: prefixed } = withReachableUrl(narinfo(url), FIRST);
    expect(prefixed).toBe(`from/${ID}/${url}`);
    expect(text).toBe(narinfo(prefixed));
    expect(route("GET", `/${prefixed}`)).toEqual({ kind: "from", id: ID, path });
    expect(named.at(-1)).toBe(path);
  });

  test("S9: of every upstream but the first says whose it is", () => {
    const url = "nar/x.nar.xz";
    expect(withReachableUrl(narinfo(url), LATER).url).toBe(`from/${ID}/${url}`);
    const absolute = "https://storage.example.org/x.nar";
    expect(withReachableUrl(narinfo(absolute), LATER).url).toBe(absolute);
  });

  test.each([
    "../x.nar",
    "nar/../../x.nar",
    "nar/..",
    "./x.nar",
    "nar/%2e%2e/x",
    "nar/%2E./x",
    "nar/..%2fx",
    "//evil.example.org/x.nar",
    "/nar/x.nar",
    "nar//x.nar",
    "nar/",
    "nar\\..\\x",
    "nar/%5c..%5cx",
    "nar/a%00b",
    "nar/%zz",
    "x#y",
    "?x",
    "x%3fy",
    `nar/${"x".repeat(1024)}`,
  ])("that leaves the upstream is refused: %s", (url) => {
    expect(() => withReachableUrl(narinfo(url), FIRST)).toThrow("within its cache");
  });

  test("that comes twice is refused", () => {
    const twice = narinfo("nar/x.nar").replace("Compression", "URL: nar/y.nar\nCompression");
    expect(() => withReachableUrl(twice, FIRST)).toThrow("within its cache");
  });

  test("whatever it is: all else stays, and what is asked for is below the upstream", () => {
    const piece = fc.constantFrom(
      "..",
      ".",
      "/",
      "\\",
      "%2e",
      "%2f",
      "%5C",
      "nar",
      "a",
      "?",
      "#",
      "%",
      " ",
      "é",
    );
    fc.assert(
      fc.property(fc.array(piece, { minLength: 1, maxLength: 8 }), (pieces) => {
        const url = pieces.join("");
        let text: string;
        try {
          ({ text } = withReachableUrl(narinfo(url), FIRST));
        } catch {
          return;
        }
        const given = parseNarInfo(text).url;
        expect(text.replace(/^URL: .*$/m, "")).toBe(narinfo("").replace(/^URL: .*$/m, ""));
        const found = route("GET", `/${given}`);
        if (found.kind !== "from" && found.kind !== "nar") throw new Error(`${given} is ${found.kind}`);
        const base = "http://upstream/base/";
        const asked = new URL(base + found.path).href;
        expect(asked).toStartWith(base);
        expect(asked).toBe(base + found.path);
      }),
      propertyParameters(),
    );
  });
});

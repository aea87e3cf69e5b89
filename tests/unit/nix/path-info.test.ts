import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { NixcacheError } from "../../../src/errors.ts";
import { type PathInfo, parsePathInfoJson } from "../../../src/nix/path-info.ts";

const FIXTURES = join(import.meta.dir, "../../fixtures/nix-path-info");
const STORE = "/nix/store";
const FIXED = `${STORE}/21ms7ghwn3cz7qfanbs3xyg5wm36a4y2-fixed`;
const APP = `${STORE}/6ldqqby2bm4sd48bjjzmpbyryi24dsrn-app`;
const LIB = `${STORE}/wz0xvl7snh3pr723hyp43b9fg83hbjsv-lib`;
const LEAF = `${STORE}/x6ja4xjvgfxi0r8i9kdmrnq9bg2c9a35-leaf.txt`;

const CLOSURE: PathInfo[] = [
  {
    path: FIXED,
    narHash: "sha256:07y32ljqjzpgw56dgrwfs7f0illrfg8bgkfq0d89p01m677grk1p",
    narSize: 120,
    references: [],
    deriver: `${STORE}/llyz7snhkflcrv3mz662iqf3sidfy7ng-fixed.drv`,
    sigs: [],
    ca: "fixed:sha256:0d75vbn546fz9d9ip0f03daqhpm99h3fv14ci4afcmk3ir0p2c0c",
    ultimate: true,
    registrationTime: 1795457336,
  },
  {
    path: APP,
    narHash: "sha256:1mcisa0v636ypj34kf6chf8wk73vnhls3knai3mw9gz2645qhs8q",
    narSize: 576,
    references: [FIXED, LIB],
    deriver: `${STORE}/62jqkvd09bxyjymxf13adfbb84ffdlb1-app.drv`,
    sigs: ["demo-1:Q/9OIHd7pHQHOqOk7Vty7QPnu6XkILxPPf6v4MRfg9u/HSh1/+F8a/dNv5XMWDV4KmpJ6FNqQ3ncly8uBGZCDA=="],
    ultimate: true,
    registrationTime: 1795457336,
  },
  {
    path: LIB,
    narHash: "sha256:037k5j5p260i6mz4cv7ni1zf12vfydnj0qgwrxhix6v0gx3ndda3",
    narSize: 568,
    references: [LIB, LEAF],
    deriver: `${STORE}/j96y5jik4kbbph3q7fgw15ikfcz5llvk-lib.drv`,
    sigs: [],
    ultimate: true,
    registrationTime: 1795457336,
  },
  {
    path: LEAF,
    narHash: "sha256:1wb7a7dprhjlz332vvkl2y924dnh9ydixl14zn1arx8qnfaq5gsl",
    narSize: 120,
    references: [],
    sigs: [],
    ca: "text:sha256:1pbfwgc4xj5ybrr18ayq9kzvfsb8m5vvzvw18s6zkp6fli4qxkjw",
    ultimate: false,
    registrationTime: 1795457336,
  },
];

describe("what real releases print", () => {
  test.each(["2.8.json", "2.26.json", "2.34.json", "2.34-format-2.json"])("%s", (file) => {
    const infos = parsePathInfoJson(readFileSync(join(FIXTURES, file), "utf8"), STORE);
    expect(infos).toEqual(CLOSURE);
  });
});

describe("shapes that no fixture has", () => {
  const good = { narHash: "sha256-N8z8zjE1gJtQA9jNt9BzmdII3NGO59dM4e9+iSUVwx8=", narSize: 120 };
  const parseOne = (fields: object) => parsePathInfoJson(JSON.stringify({ [FIXED]: fields }), STORE)[0];

  test("a path with nothing but the necessary", () => {
    expect(parseOne(good)).toEqual({
      path: FIXED,
      narHash: "sha256:07y32ljqjzpgw56dgrwfs7f0illrfg8bgkfq0d89p01m677grk1p",
      narSize: 120,
      references: [],
      sigs: [],
      ultimate: false,
      registrationTime: 0,
    });
  });

  test("references are sorted", () => {
    expect(parseOne({ ...good, references: [LIB, APP] })?.references).toEqual([APP, LIB]);
  });

  test("every method of a structured content address", () => {
    const hash = "sha256-DDBxQY5jVuYUiYyE7QZMqV6IVRvAgRtTS98ZUuza5TQ=";
    const ca = (method: string) => parseOne({ ...good, ca: { method, hash } })?.ca;
    const text = "sha256:0d75vbn546fz9d9ip0f03daqhpm99h3fv14ci4afcmk3ir0p2c0c";
    expect(ca("flat")).toBe(`fixed:${text}`);
    expect(ca("nar")).toBe(`fixed:r:${text}`);
    expect(ca("git")).toBe(`fixed:git:${text}`);
    expect(ca("text")).toBe(`text:${text}`);
    expect(() => ca("other")).toThrow('got method "other", expected flat, nar, git, text');
  });

  test("structured signatures", () => {
    expect(parseOne({ ...good, signatures: [{ keyName: "k", sig: "AA==" }] })?.sigs).toEqual(["k:AA=="]);
  });

  test("an empty list and an empty object", () => {
    expect(parsePathInfoJson("[]", STORE)).toEqual([]);
    expect(parsePathInfoJson("{}", STORE)).toEqual([]);
  });

  test.each<[string, unknown, string]>([
    ["no JSON", undefined, "not JSON"],
    ["a number", 7, "got 7, expected a JSON object"],
    ["a list of texts", ["x"], "expected a JSON object"],
    ["an absent path in a list", [{ path: FIXED, valid: false }], `${FIXED} is not valid`],
    ["an absent path in an object", { [FIXED]: null }, `${FIXED} is not valid`],
    ["a list item without a path", [good], "nix path-info: path: got nothing, expected a text"],
    ["no NAR hash", { [FIXED]: { narSize: 1 } }, "narHash: got nothing, expected a text"],
    [
      "a NAR hash of another kind",
      { [FIXED]: { ...good, narHash: "md5-AAAAAAAAAAAAAAAAAAAAAA==" } },
      "narHash",
    ],
    ["a cut hash", { [FIXED]: { ...good, narHash: "sha256-N8z8" } }, "narHash"],
    [
      "a NAR size of 0",
      { [FIXED]: { ...good, narSize: 0 } },
      "narSize: got 0, expected a whole number from 1",
    ],
    ["a NAR size in text", { [FIXED]: { ...good, narSize: "120" } }, 'narSize: got "120"'],
    [
      "references that are none",
      { [FIXED]: { ...good, references: {} } },
      "references: got {}, expected a list",
    ],
    ["a reference that is none", { [FIXED]: { ...good, references: [1] } }, "references: got 1"],
    ["a signature that is none", { [FIXED]: { ...good, signatures: [null] } }, "got signature null"],
  ])("%s", (_, value, message) => {
    const text = value === undefined ? "error: no" : JSON.stringify(value);
    expect(() => parsePathInfoJson(text, STORE)).toThrow(message);
    expect(() => parsePathInfoJson(text, STORE)).toThrow(NixcacheError);
  });
});

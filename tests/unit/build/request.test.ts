import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  describeRequests,
  flakeReference,
  joinDiscoveries,
  localFolder,
} from "../../../src/build/request.ts";

const top = mkdtempSync(join(tmpdir(), "nixcache-test-request-"));
afterAll(() => rmSync(top, { recursive: true }));
mkdirSync(join(top, "config"));
writeFileSync(join(top, "config", "flake.nix"), "{}");

test.each([
  ["config", "./config"],
  ["./config", "./config"],
  ["nixpkgs", "nixpkgs"],
  ["path:config", "path:config"],
])("the flake %s", (text, reference) => {
  expect(flakeReference(text, top)).toBe(reference);
});

test.each([
  [{ flake: "./config" }, "config"],
  [{ flake: "path:./config?x=y" }, "config"],
  [{ flake: "nixpkgs" }, undefined],
  [{ flake: "github:config/config" }, undefined],
  [{ file: "config/default.nix" }, "config"],
])("the folder of %j", (source, folder) => {
  expect(localFolder(source, top)).toBe(folder === undefined ? undefined : join(top, folder));
});

describe("a selection", () => {
  const config = { source: { flake: "./config" } };

  test("is the same from anywhere in a checkout", () => {
    const expected = "flake ./config: devShells nixosConfigurations packages";
    expect(describeRequests([config], top, top)).toBe(expected);
    expect(describeRequests([{ source: { flake: join(top, "config") } }], "/", top)).toBe(expected);
    expect(describeRequests([{ source: { flake: "." } }], join(top, "config"), top)).toBe(expected);
  });

  test.each([
    [{ ...config, outputs: ["b", "a"] }, "flake ./config: a b"],
    [
      { ...config, outputs: ["a"], include: ["y", "x"], exclude: ["z"] },
      "flake ./config: a, only x y, without z",
    ],
    [{ source: { file: "default.nix" } }, "file ./default.nix"],
    [{ source: { file: "default.nix" }, outputs: ["a"] }, "file ./default.nix: a"],
    [{ source: { flake: "nixpkgs" }, outputs: ["hello", "git"], named: true }, "nixpkgs#git; nixpkgs#hello"],
  ])("%j", (request, expected) => {
    expect(describeRequests([request], top, top)).toBe(expected);
  });
});

test("several discoveries as one: names by flake, none twice", () => {
  const found = (attribute: string) => ({
    targets: [],
    missing: [],
    broken: [{ attribute, reason: "r" }],
    skipped: [],
  });
  const named = (flake: string) => ({ source: { flake }, named: true });
  const joined = joinDiscoveries([
    [named("a"), found("x")],
    [named("b"), found("x")],
    [named("a"), found("x")],
  ]);
  expect(joined.broken.map(({ attribute }) => attribute)).toEqual(["a#x", "b#x"]);
});

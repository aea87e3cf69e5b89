import { describe, expect, test } from "bun:test";
import { parseInstallable, readNames } from "../../../src/build/installable.ts";

test.each([
  ["nixpkgs#hello", { flake: "nixpkgs", attribute: "hello" }],
  ["#hello", { flake: ".", attribute: "hello" }],
  [".#", { flake: ".", attribute: "default" }],
  ["github:o/r", { flake: "github:o/r", attribute: "default" }],
  ["git+https://host/r?ref=x#a.b", { flake: "git+https://host/r?ref=x", attribute: "a.b" }],
  ["./result", undefined],
  ["/nix/store/00000000000000000000000000000000-a", undefined],
  ["result", undefined],
])("%s", (text, expected) => {
  expect(parseInstallable(text)).toEqual(expected as never);
});

describe("names on standard input", () => {
  test.each([
    ["lines", "/a\n\n  ./b  \n", ["/a", "./b"]],
    ["nothing", "", []],
    ["derivations", '[{"drvPath":"/d.drv","outputs":{"out":"/a","dev":"/b"}}]', ["/a", "/b"]],
    ["what is no derivation", ' [{"path":"/a"},"/b"]\n', ["/a", "/b"]],
    ["nothing built", "[]", []],
  ])("%s", (_, text, names) => {
    expect(readNames(text)).toEqual(names);
  });

  test.each(["[", "[{}]", "[1]", "[null]", '[{"outputs":{"out":null}}]', '[{"outputs":{"out":{}}}]'])(
    "%s",
    (text) => {
      expect(() => readNames(text)).toThrow(/expected the output of `nix build --json`/);
    },
  );
});

import { describe, expect, test } from "bun:test";
import { parseDerivation, parseInstallable, splitOutputs } from "../../../src/build/installable.ts";

const DRV = "/nix/store/00000000000000000000000000000000-a.drv";

test.each([
  ["nixpkgs#hello", { flake: "nixpkgs", attribute: "hello" }],
  ["#hello", { flake: ".", attribute: "hello" }],
  [".#", { flake: ".", attribute: "default" }],
  ["github:o/r", { flake: "github:o/r", attribute: "default" }],
  ["git+https://host/r?ref=x#a.b", { flake: "git+https://host/r?ref=x", attribute: "a.b" }],
  ['.#"a#b"', { flake: ".", attribute: '"a#b"' }],
  ["nixpkgs#hello^*", { flake: "nixpkgs", attribute: "hello^*" }],
  [".#^dev", { flake: ".", attribute: "default^dev" }],
  ["github:o/r^out,dev", { flake: "github:o/r", attribute: "default^out,dev" }],
  ["./result", undefined],
  ["/nix/store/00000000000000000000000000000000-a", undefined],
  [`${DRV}^*`, undefined],
  ["result", undefined],
])("%s", (text, expected) => {
  expect(parseInstallable(text)).toEqual(expected as never);
});

test.each([
  [`${DRV}^*`, { path: DRV }],
  [`${DRV}^out,dev`, { path: DRV, outputs: ["out", "dev"] }],
  [`${DRV}!dev`, { path: DRV, outputs: ["dev"] }],
  ["./link.drv^out", { path: "./link.drv", outputs: ["out"] }],
  [DRV, undefined],
  ["./a^b", undefined],
])("%s", (text, expected) => {
  expect(parseDerivation(text)).toEqual(expected as never);
});

describe("outputs behind a text", () => {
  test.each([
    ["a", { text: "a" }],
    ["a^*", { text: "a" }],
    ["a^out", { text: "a", outputs: ["out"] }],
    ["a^out,dev,out", { text: "a", outputs: ["out", "dev"] }],
    ['"a^dev"', { text: '"a^dev"' }],
    ['"a^b"^dev', { text: '"a^b"', outputs: ["dev"] }],
    ["a^b^dev", { text: "a^b", outputs: ["dev"] }],
  ])("%s", (text, expected) => {
    expect(splitOutputs(text)).toEqual(expected as never);
  });

  test.each(["a^", "a^out,", "a^,out", "a^out dev", "a^*,out"])("%s is refused", (text) => {
    expect(() => splitOutputs(text)).toThrow(/expected outputs$/);
  });
});

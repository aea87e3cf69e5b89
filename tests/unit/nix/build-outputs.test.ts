import { expect, test } from "bun:test";
import { parseBuildJson } from "../../../src/nix/build-outputs.ts";

test("outputs of derivations, and nothing else", () => {
  const list = [
    { drvPath: "/nix/store/a.drv", outputs: { out: "/nix/store/a", dev: null } },
    { path: "/nix/store/b" },
    "/nix/store/c",
    null,
    { drvPath: "/nix/store/d.drv", outputs: {}, startTime: 1 },
  ];
  expect(parseBuildJson(JSON.stringify(list))).toEqual([
    ["/nix/store/a.drv", { out: "/nix/store/a" }],
    ["/nix/store/d.drv", {}],
  ]);
});

test.each(["", "{}", "null", "[", '"x"'])("%j has none", (text) => {
  expect(parseBuildJson(text)).toEqual([]);
});

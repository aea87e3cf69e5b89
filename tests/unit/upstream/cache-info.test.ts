import { expect, test } from "bun:test";
import { parseCacheInfo } from "../../../src/upstream/cache-info.ts";

test.each([
  ["StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n", 40],
  ["StoreDir: /nix/store\n", 0],
  ["Priority:7\nStoreDir: /nix/store\nPriority: 41\r\nX: y", 41],
])("%j has priority %i", (text, priority) => {
  expect(parseCacheInfo(text)).toEqual({ priority });
});

test.each([
  [""],
  ["<html>Please: sign in</html>\n"],
  ["StoreDir: /gnu/store\nPriority: 1\n"],
  ["StoreDir: /nix/store\nPriority: high\n"],
  ["StoreDir: /nix/store\nPriority: -1\n"],
  ["StoreDir: /nix/store\nPriority: 99999999999\n"],
])("%j is refused", (text) => {
  expect(() => parseCacheInfo(text)).toThrow("expected");
});

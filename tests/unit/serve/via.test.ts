import { expect, test } from "bun:test";
import { formatVia, hopsOf, mayPassOn } from "../../../src/serve/via.ts";

const [a = "", b = ""] = ["a", "b"].map((letter) => letter.repeat(16));

test("the way of a request is read back, whatever other proxies have added", () => {
  expect(hopsOf(null)).toEqual([]);
  expect(hopsOf(formatVia([], a))).toEqual([a]);
  expect(hopsOf(`1.1 nginx, ${formatVia([a], b)}, 2 varnish (nixcache-x)`)).toEqual([a, b]);
});

test("a request that has come through us, or through too many, is not passed on", () => {
  expect(mayPassOn([], a)).toBe(true);
  expect(mayPassOn([b, b, b, b], a)).toBe(true);
  expect(mayPassOn([b, b, b, b, b], a)).toBe(false);
  expect(mayPassOn([b, a], a)).toBe(false);
});

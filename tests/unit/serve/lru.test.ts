import { expect, test } from "bun:test";
import fc from "fast-check";
import { Lru } from "../../../src/serve/lru.ts";
import { propertyParameters } from "../../support/seed.ts";

test("what was not used for the longest time goes first", () => {
  const lru = new Lru<number>(3);
  for (const [index, key] of ["a", "b", "c"].entries()) lru.set(key, index);
  expect(lru.get("a")).toBe(0);
  lru.set("d", 3);
  expect(["a", "b", "c", "d"].map((key) => lru.get(key))).toEqual([0, undefined, 2, 3]);
});

test("never holds more than it may, and always what was set last if that fits", () => {
  const operation = fc.record({ key: fc.constantFrom(..."abcdefgh"), size: fc.nat(12) });
  fc.assert(
    fc.property(fc.array(operation), (operations) => {
      const lru = new Lru<number>(10);
      const keys = new Set<string>();
      for (const { key, size } of operations) {
        lru.set(key, size, size);
        keys.add(key);
        if (size <= 10) expect(lru.get(key)).toBe(size);
        const held = [...keys].reduce((sum, name) => sum + (lru.get(name) ?? 0), 0);
        expect(held).toBeLessThanOrEqual(10);
      }
    }),
    propertyParameters(),
  );
});

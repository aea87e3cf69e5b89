import { heapStats } from "bun:jsc";
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

test("rule 6: a key that was cut out of a text does not keep that text in memory", () => {
  const lru = new Lru<number>(1000);
  const held = () => {
    Bun.gc(true);
    return heapStats().heapSize + heapStats().extraMemorySize;
  };
  const before = held();
  for (let index = 0; index < 1000; index++) {
    const text = Buffer.alloc(32 * 1024, `${index} `).toString();
    lru.set(text.slice(100, 150) + index, index);
    lru.set(text.slice(0, 60), index);
    expect(lru.get(text.slice(0, 60))).toBe(index);
  }
  expect(held() - before).toBeLessThan(8 * 1024 ** 2);
  expect(lru.get(Buffer.alloc(60, "999 ").toString())).toBe(999);
});

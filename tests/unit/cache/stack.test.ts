import { expect, test } from "bun:test";
import fc from "fast-check";
import { layersToKeep, MAX_LAYERS } from "../../../src/cache/stack.ts";
import { propertyParameters } from "../../support/seed.ts";

test.each([
  [[], 10, 0],
  [[100], 10, 1],
  [[100, 10], 10, 1],
  [[100, 10], 9, 2],
  [[100, 50, 40, 10], 10, 3],
  [[100, 50, 30, 20], 10, 4],
  [[40, 30, 20, 10], 10, 0],
])("on %j a layer of %i keeps %i", (sizes, size, keep) => {
  expect(layersToKeep(sizes, size)).toBe(keep);
});

test("the stack stays within its bound, and what is rewritten within a logarithm", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 10_000 }), { maxLength: 300 }), (sizes) => {
      let stack: number[] = [];
      let written = 0;
      for (const size of sizes) {
        const keep = layersToKeep(stack, size);
        const merged = stack.slice(keep).reduce((sum, below) => sum + below, size);
        stack = [...stack.slice(0, keep), merged];
        written += merged;
        expect(stack.length).toBeLessThanOrEqual(MAX_LAYERS);
      }
      const total = sizes.reduce((sum, size) => sum + size, 0);
      expect(written).toBeLessThanOrEqual(total * (2 + Math.log2(total + 1)));
    }),
    propertyParameters(),
  );
});

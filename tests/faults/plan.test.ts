/** The plans of the fault proxy: what is drawn, and what is not. */
import { expect, test } from "bun:test";
import { randomPlan } from "../support/fault-plan.ts";

test("a random plan follows from its seed, meets its probability, and spares who tries often enough", () => {
  const request = {
    origin: "registry",
    method: "GET",
    path: "/v2/x/blobs/sha256:1",
    range: null,
    size: 0,
  } as const;
  const draw = (seed: number) => {
    const plan = randomPlan({ seed, probability: 0.2 });
    return Array.from({ length: 5000 }, (_, i) => plan({ ...request, path: `/v2/x/blobs/sha256:${i % 50}` }));
  };
  expect(draw(1)).toEqual(draw(1));
  expect(draw(1)).not.toEqual(draw(2));
  const faults = draw(3).filter((fault) => fault !== undefined);
  expect(faults.length).toBeGreaterThan(800);
  expect(faults.length).toBeLessThan(1200);
  expect(new Set(faults.map((fault) => fault.kind)).size).toBeGreaterThanOrEqual(9);
  const certain = randomPlan({ seed: 1, probability: 1, inARow: 3 });
  const four = Array.from({ length: 4 }, () => certain(request));
  expect(four.map((fault) => fault !== undefined)).toEqual([true, true, true, false]);
});

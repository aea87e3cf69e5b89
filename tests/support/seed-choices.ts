/** Choices of a test that follow from the seed of the run (NIXCACHE_SEED), which is printed when it was drawn. */
import { TestHost } from "./protocol.ts";
import { propertyParameters } from "./seed.ts";

export interface Choices {
  readonly seed: number;
  /** In [0, 1). */
  random(): number;
  /** A whole number from 0 to below `limit`. */
  below(limit: number): number;
  pick<T>(items: readonly T[], count: number): T[];
  /** One of them; there must be one. */
  one<T>(items: readonly T[]): T;
}

/** @param name tells the choices of one test from those of another with the same seed */
export function choices(name: string): Choices {
  const { seed } = propertyParameters();
  const own = new Bun.CryptoHasher("sha256").update(`${name} ${seed}`).digest().readInt32LE();
  const { random } = new TestHost(0, own);
  const below = (limit: number) => Math.floor(random() * limit);
  return {
    seed: own,
    random,
    below,
    one: (items) => items[below(items.length)] as (typeof items)[number],
    pick(items, count) {
      const left = [...items];
      return Array.from({ length: Math.min(count, left.length) }, () =>
        left.splice(below(left.length), 1),
      ).flat();
    },
  };
}

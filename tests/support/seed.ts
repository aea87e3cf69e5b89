/**
 * Loaded before every test file by `bun run test`: the seed of the run, printed there, goes to all properties, so
 * that a failure comes back with `NIXCACHE_SEED=… bun run test`. Without one, fast-check draws its own.
 */
import fc from "fast-check";

const seed = Number(process.env.NIXCACHE_SEED || Number.NaN);
if (Number.isSafeInteger(seed)) fc.configureGlobal({ ...fc.readConfigureGlobal(), seed });

let drawn: number | undefined;

/**
 * Parameters for `fc.assert`: the seed of the run or, when a test file is run by itself, one that is drawn here
 * and printed once.
 */
export function propertyParameters(): { seed: number } {
  if (Number.isSafeInteger(seed)) return { seed };
  if (drawn === undefined) {
    drawn = crypto.getRandomValues(new Int32Array(1))[0] ?? 0;
    console.log(`NIXCACHE_SEED=${drawn}`);
  }
  return { seed: drawn };
}

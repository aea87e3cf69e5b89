/**
 * How the root's stack of layers stays short: like a binary counter, where a new layer takes in the layers on
 * top that are no larger than itself. A line is then rewritten a logarithmic number of times, and a reader
 * that was up to date fetches little.
 */

/** Layers of a root at most; beyond it the upper ones are merged whatever their size. */
export const MAX_LAYERS = 16;

/**
 * How many layers stay below a new one of `size` bytes.
 * @param sizes of the layers that count, the lowest first, in bytes
 */
export function layersToKeep(sizes: readonly number[], size: number): number {
  let keep = sizes.length;
  let merged = size;
  for (let below = sizes[keep - 1]; below !== undefined; below = sizes[keep - 1]) {
    if (below > merged && keep < MAX_LAYERS) break;
    merged += below;
    keep--;
  }
  return keep;
}

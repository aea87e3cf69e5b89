/**
 * The roots of a publish, for its record: names, and the store paths that they stand for. Bare paths go by their base
 * names.
 *
 * The record is one line of the index, and a line is bounded. Whoever publishes a whole store gets one root that
 * stands for the list, by which the same list is recognised.
 */
import { digestOf } from "../oci/digest.ts";

/** Some 300 KiB of a line. */
const MAX_ROOTS = 2_000;

export function rootsOf(paths: readonly string[]): Record<string, string> {
  return boundedRoots([...paths].sort().map((path) => [path.slice(path.lastIndexOf("/") + 1), path]));
}

/** @param named names and store paths; of the same name the last counts */
export function boundedRoots(named: readonly (readonly [string, string])[]): Record<string, string> {
  const roots = new Map(named);
  if (roots.size <= MAX_ROOTS) return Object.fromEntries(roots);
  return { [`${roots.size} paths`]: digestOf([...roots.values()].join("\n")) };
}

/**
 * The roots of a publish of bare paths, for its record: each path by its base name.
 *
 * The record is one line of the index, and a line is bounded. Whoever publishes a whole store gets one root that
 * stands for the list, by which the same list is recognised.
 */
import { digestOf } from "../oci/digest.ts";

/** Some 300 KiB of a line. */
const MAX_ROOTS = 2_000;

export function rootsOf(paths: readonly string[]): Record<string, string> {
  const sorted = [...new Set(paths)].sort();
  if (sorted.length > MAX_ROOTS) return { [`${sorted.length} paths`]: digestOf(sorted.join("\n")) };
  return Object.fromEntries(sorted.map((path) => [path.slice(path.lastIndexOf("/") + 1), path]));
}

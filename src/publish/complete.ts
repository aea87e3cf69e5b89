/**
 * Rule 3: an entry is committed only when every reference of it is in this publish, in the cache, or upstream.
 */
import type { PathInfo } from "../nix/store.ts";

export interface LeftOut {
  readonly path: string;
  readonly reason: string;
}

/**
 * Splits a closure into paths that can be committed and paths that cannot.
 *
 * @param closure references first
 * @param failed why a path itself could not be uploaded, by path
 */
export function leaveOutDependents(
  closure: readonly PathInfo[],
  failed: ReadonlyMap<string, string>,
): { complete: PathInfo[]; leftOut: LeftOut[] } {
  const gone = new Set<string>();
  const complete: PathInfo[] = [];
  const leftOut: LeftOut[] = [];
  for (const info of closure) {
    const missing = info.references.find((reference) => reference !== info.path && gone.has(reference));
    const reason = failed.get(info.path) ?? (missing && `it refers to ${missing}, which was left out`);
    if (reason === undefined) {
      complete.push(info);
    } else {
      gone.add(info.path);
      leftOut.push({ path: info.path, reason });
    }
  }
  return { complete, leftOut };
}

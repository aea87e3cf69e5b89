/**
 * Which NARs go into which blobs, decided before any work and from Nix's records alone: a run that is killed
 * and started again makes the same blobs, and finds those that it had uploaded.
 */
import type { PathInfo } from "../nix/store.ts";

/** NARs up to this many bytes share packs: a blob of their own would cost two write requests each. */
export const SMALL_NAR_BYTES = 1024 * 1024;

/** Bytes of NARs that one pack holds at most, before compression. */
const PACK_BYTES = 8 * 1024 * 1024;

/** What is uploaded as a whole: a pack of small NARs, or the parts of one large NAR. */
export type Unit =
  | { readonly kind: "pack"; readonly paths: readonly PathInfo[] }
  | { readonly kind: "large"; readonly path: PathInfo };

/**
 * @param fresh the paths to upload, references first, so that a pack holds what is asked for together
 * @returns units in the order of their first path; of paths with the same NAR only the first is in one
 */
export function planUnits(fresh: readonly PathInfo[]): Unit[] {
  const units: Unit[] = [];
  const seen = new Set<string>();
  let pack: PathInfo[] = [];
  let packed = 0;
  const close = () => {
    if (pack.length > 0) units.push({ kind: "pack", paths: pack });
    pack = [];
    packed = 0;
  };
  for (const path of fresh) {
    if (seen.has(path.narHash)) continue;
    seen.add(path.narHash);
    if (path.narSize > SMALL_NAR_BYTES) {
      units.push({ kind: "large", path });
      continue;
    }
    if (packed + path.narSize > PACK_BYTES) close();
    pack.push(path);
    packed += path.narSize;
  }
  close();
  return units;
}

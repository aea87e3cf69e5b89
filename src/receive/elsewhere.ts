/** Whether another cache than the one that is written to has a store path. */
import type { Source } from "../serve/source.ts";
import type { Upstreams } from "../serve/upstreams.ts";
import type { Elsewhere } from "./batch.ts";

/** Store hashes that are remembered, some 10 MiB: an upstream that has a path keeps it. */
const REMEMBERED = 100_000;

/** @param sources that are served beside the one that is written to */
export function elsewhereIn(
  sources: readonly Source[],
  upstreams: Pick<Upstreams, "narinfo">,
  signal: AbortSignal,
): Elsewhere {
  const known = new Set<string>();
  return async (storeHash) => {
    if (known.has(storeHash) || sources.some(({ view }) => view.narinfo(storeHash) !== undefined))
      return true;
    const found = await upstreams.narinfo(storeHash, { method: "GET", headers: new Headers(), signal });
    if (found === undefined) return false;
    if (known.size >= REMEMBERED) known.clear();
    known.add(storeHash);
    return true;
  };
}

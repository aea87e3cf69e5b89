/** Whether another cache than the one that is written to has a store path. */
import { isContentAddressed } from "../nar/content-address.ts";
import { parseNarInfo } from "../nar/narinfo.ts";
import { verifyNarInfo } from "../nar/signature.ts";
import type { PublicKey } from "../nar/signing-key.ts";
import { STORE_DIR } from "../nar/store-path.ts";
import type { Source } from "../serve/source.ts";
import type { Upstreams } from "../serve/upstreams.ts";
import type { Elsewhere } from "./batch.ts";

/** Base names that are remembered, some 10 MiB: an upstream that has a path keeps it. */
const REMEMBERED = 100_000;

/**
 * @param sources that are served beside the one that is written to
 * @param keys by which all upstreams sign; empty where those of one are not known, whose word must do
 */
export function elsewhereIn(
  sources: readonly Source[],
  upstreams: Pick<Upstreams, "narinfo">,
  keys: readonly PublicKey[],
  signal: AbortSignal,
): Elsewhere {
  const known = new Set<string>();
  return async (storeHash, baseName) => {
    if (known.has(baseName) || sources.some(({ view }) => view.narinfo(storeHash) !== undefined)) return true;
    const found = await upstreams.narinfo(storeHash, { method: "GET", headers: new Headers(), signal });
    if (found === undefined) return false;
    const info = parseNarInfo(found);
    if (info.storePath !== `${STORE_DIR}/${baseName}`) return false;
    if (keys.length > 0 && !verifyNarInfo(info, keys) && !isContentAddressed(info)) return false;
    if (known.size >= REMEMBERED) known.clear();
    known.add(baseName);
    return true;
  };
}

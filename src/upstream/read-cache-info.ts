/** Asks an upstream what it says of itself. */
import { messageOf } from "../errors.ts";
import { readText } from "./body.ts";
import { CACHE_INFO_PATH, type CacheInfo, MAX_CACHE_INFO_BYTES, parseCacheInfo } from "./cache-info.ts";
import type { Upstream } from "./client.ts";
import { UpstreamFailure } from "./failure.ts";

/** Undefined when the upstream has none. @throws `unreachable`, also for another store folder than ours. */
export async function readCacheInfo(
  upstream: Upstream,
  signal?: AbortSignal,
): Promise<CacheInfo | undefined> {
  const response = await upstream.request(CACHE_INFO_PATH, { method: "GET", signal, encoded: true });
  if (response === undefined) return undefined;
  try {
    return parseCacheInfo(await readText(response, MAX_CACHE_INFO_BYTES));
  } catch (cause) {
    if (cause instanceof UpstreamFailure) throw cause;
    const message = `GET ${upstream.url}/${CACHE_INFO_PATH}: ${messageOf(cause)}`;
    throw new UpstreamFailure(message, { status: response.status, cause });
  }
}

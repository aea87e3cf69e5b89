/**
 * The state of the server as JSON. Users of https://github.com/cmspam/nixcache-oci know the fields
 * `index_entries`, `index_generated`, `index_ttl`, `repo` and `upstream`; they are what they are there, of the first cache.
 */
import { COMMIT, VERSION } from "../version.ts";
import type { ServedCache } from "./cache.ts";
import type { ServerState } from "./server-state.ts";
import { HIT_SOURCES, isContent } from "./traffic.ts";

export function serverStatus(server: ServerState): Record<string, unknown> {
  const { upstreams, ttlMs, startedAt, now } = server;
  const caches = server.caches.map(cacheStatus);
  return {
    version: VERSION,
    commit: COMMIT,
    uptime: Math.round((now() - startedAt) / 1000),
    upstream: upstreams.status().map(({ url }) => url),
    index_ttl: ttlMs / 1000,
    ...caches[0],
    caches,
    upstreams: upstreams.status().map(({ lastError, retryAt, ...status }) => ({
      ...status,
      last_error: lastError,
      retry_at: time(retryAt),
    })),
    nar_cache: server.narCache?.(),
    writing: server.writing?.(),
    traffic: trafficStatus(server),
  };
}

function cacheStatus(cache: ServedCache) {
  const { entries, generations, generatedAt, bytes, keys } = cache.summary();
  return {
    repo: cache.store.name,
    /** The only generation that is served; null for the cache as it is now. */
    generation: cache.generation ?? null,
    index_loaded: cache.isLoaded(),
    index_entries: entries,
    index_generations: generations,
    /** Those that are passed over, as none of the given keys has signed them. */
    unsigned_generations: cache.index.view.unsigned().length,
    /** When the newest generation was published. */
    index_generated: time(generatedAt) ?? "unknown",
    index_refreshed: time(cache.refreshedAt()),
    index_bytes: bytes,
    index_error: cache.lastError() ?? null,
    public_keys: keys,
  };
}

/** Since the start. */
function trafficStatus({ traffic, underWay }: ServerState) {
  const hits = Object.fromEntries(HIT_SOURCES.map((source) => [source, 0]));
  let requests = 0;
  let bytes = 0;
  for (const [kind, counted] of traffic.kinds) {
    requests += counted.requests;
    bytes += counted.bytes;
    if (!isContent(kind)) continue;
    for (const source of HIT_SOURCES) hits[source] = (hits[source] ?? 0) + counted.hits[source];
  }
  return { requests, bytes, hits, under_way: underWay() };
}

function time(ms: number | null | undefined): string | null {
  return ms === null || ms === undefined ? null : new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}

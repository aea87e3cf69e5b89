/** The state of the server in Prometheus's text format. Names: https://prometheus.io/docs/practices/naming/ */
import { COMMIT, VERSION } from "../version.ts";
import type { ServedCache } from "./cache.ts";
import { type Family, formatFamilies, type Sample } from "./prometheus.ts";
import type { ServerState } from "./server-state.ts";
import { HIT_SOURCES, isContent, type KindTraffic, LATENCY_BOUNDS_S } from "./traffic.ts";
import type { UpstreamStatus } from "./upstream-peer.ts";

export function serverMetrics(server: ServerState): string {
  return formatFamilies([
    ...trafficFamilies(server),
    ...cacheFamilies(server),
    ...upstreamFamilies(server.upstreams.status()),
    ...optionalFamilies(server),
    ...processFamilies(server),
  ]);
}

function trafficFamilies({ traffic, underWay }: ServerState): Family[] {
  const kinds = [...traffic.kinds];
  const each = (samples: (counted: KindTraffic, kind: string) => readonly Sample[]) =>
    kinds.flatMap(([kind, counted]) => samples(counted, kind));
  const hits = kinds.filter(([kind]) => isContent(kind));
  return [
    {
      name: "nixcache_http_requests_total",
      help: "Requests by what they ask for and the class of their status.",
      type: "counter",
      samples: each((counted, kind) =>
        Array.from(counted.statuses, (value, digit) => ({
          labels: { kind, status: `${digit}xx` },
          value,
        })).filter(({ value }) => value > 0),
      ),
    },
    {
      name: "nixcache_http_response_bytes_total",
      help: "Bytes of bodies that were sent.",
      type: "counter",
      samples: each(({ bytes }, kind) => [{ labels: { kind }, value: bytes }]),
    },
    {
      name: "nixcache_http_request_duration_seconds",
      help: "Time from a request to the beginning of its answer.",
      type: "histogram",
      samples: each(histogram),
    },
    {
      name: "nixcache_http_requests_in_progress",
      help: "Requests that are not fully answered yet.",
      type: "gauge",
      samples: [{ value: underWay() }],
    },
    {
      name: "nixcache_hits_total",
      help: "Requests for content by where the answer came from.",
      type: "counter",
      samples: hits.flatMap(([kind, counted]) =>
        HIT_SOURCES.map((source) => ({ labels: { kind, source }, value: counted.hits[source] })),
      ),
    },
  ];
}

function histogram({ latencies, seconds }: KindTraffic, kind: string): Sample[] {
  let count = 0;
  const buckets = Array.from(latencies, (inBucket, at) => {
    count += inBucket;
    const le = String(LATENCY_BOUNDS_S[at] ?? "+Inf");
    return { suffix: "_bucket", labels: { kind, le }, value: count };
  });
  return [
    ...buckets,
    { suffix: "_sum", labels: { kind }, value: seconds },
    { suffix: "_count", labels: { kind }, value: count },
  ];
}

function cacheFamilies({ caches, now }: ServerState): Family[] {
  const family = (
    name: string,
    help: string,
    value: (cache: ServedCache) => number | undefined,
    type: Family["type"] = "gauge",
  ): Family => ({
    name,
    help,
    type,
    samples: samplesOf(caches, ({ store }) => ({ cache: store.name }), value),
  });
  const age = (since: number | undefined) => (since === undefined ? undefined : (now() - since) / 1000);
  return [
    family("nixcache_index_loaded", "Whether an index was ever loaded.", (cache) => Number(cache.isLoaded())),
    family("nixcache_index_age_seconds", "Time since the index was last known to be current.", (cache) =>
      age(cache.refreshedAt()),
    ),
    family("nixcache_index_generated_age_seconds", "Time since the newest publish.", (cache) =>
      age(cache.summary().generatedAt),
    ),
    family("nixcache_index_entries", "Store paths in the index.", (cache) => cache.summary().entries),
    family("nixcache_index_generations", "Publishes in the index.", (cache) => cache.summary().generations),
    family(
      "nixcache_unsigned_generations",
      "Publishes that are passed over, as none of the given keys has signed them.",
      (cache) => cache.index.view.unsigned().length,
    ),
    {
      name: "nixcache_index_generation_info",
      help: "The only generation that is served, where it is not the cache as it is now.",
      type: "gauge",
      samples: caches.flatMap(({ store, generation }) =>
        generation === undefined ? [] : [{ labels: { cache: store.name, generation }, value: 1 }],
      ),
    },
    family("nixcache_index_bytes", "Compressed size of the index.", (cache) => cache.summary().bytes),
    {
      name: "nixcache_index_refreshes_total",
      help: "Refreshes of the index by how they ended.",
      type: "counter",
      samples: caches.flatMap(({ store, refreshes }) => [
        { labels: { cache: store.name, result: "ok" }, value: refreshes.ok },
        { labels: { cache: store.name, result: "failed" }, value: refreshes.failed },
      ]),
    },
  ];
}

function upstreamFamilies(upstreams: readonly UpstreamStatus[]): Family[] {
  const family = (
    name: string,
    help: string,
    value: (upstream: UpstreamStatus) => number | null,
    type: Family["type"] = "counter",
  ): Family => ({ name, help, type, samples: samplesOf(upstreams, ({ url }) => ({ upstream: url }), value) });
  return [
    family(
      "nixcache_upstream_up",
      "Whether it is asked; 0 while it is left alone.",
      ({ state }) => Number(state === "up"),
      "gauge",
    ),
    family("nixcache_upstream_requests_total", "Requests sent to it.", ({ requests }) => requests),
    family("nixcache_upstream_hits_total", "Requests that it had the answer to.", ({ hits }) => hits),
    family("nixcache_upstream_misses_total", "Requests that it had nothing for.", ({ misses }) => misses),
    family("nixcache_upstream_failures_total", "Requests that it failed at.", ({ failures }) => failures),
    family(
      "nixcache_upstream_latency_seconds",
      "Mean time until it answers, the newest answers counting most.",
      ({ latency }) => (latency === null ? null : latency / 1000),
      "gauge",
    ),
  ];
}

/** Of what was asked for by flags. */
function optionalFamilies({ narCache, writing }: ServerState): Family[] {
  const families: Family[] = [];
  if (narCache !== undefined) {
    const { bytes, limit, blobs, hits, misses, filling } = narCache();
    families.push(
      single("nixcache_nar_cache_bytes", "Size of the NARs on disk.", bytes),
      single("nixcache_nar_cache_limit_bytes", "What they may have at most.", limit),
      single("nixcache_nar_cache_blobs", "Blobs on disk.", blobs),
      single("nixcache_nar_cache_filling", "Downloads to disk under way.", filling),
      single("nixcache_nar_cache_hits_total", "Reads that needed no request.", hits, "counter"),
      single("nixcache_nar_cache_misses_total", "Reads that needed requests.", misses, "counter"),
    );
  }
  if (writing !== undefined) {
    const { pending_paths, pending_bytes, last_error } = writing();
    families.push(
      single("nixcache_journal_paths", "Uploaded paths that are not committed yet.", pending_paths),
      single("nixcache_journal_bytes", "Size of the uploads that are not committed yet.", pending_bytes),
      single("nixcache_journal_failing", "Whether the last commit failed.", Number(last_error !== null)),
    );
  }
  return families;
}

/** A sample for each item that has a value. */
function samplesOf<T>(
  items: readonly T[],
  labels: (item: T) => Record<string, string>,
  value: (item: T) => number | null | undefined,
): Sample[] {
  return items.flatMap((item) => {
    const known = value(item);
    return known === null || known === undefined ? [] : [{ labels: labels(item), value: known }];
  });
}

/** The names that all exporters use: https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics */
function processFamilies({ startedAt }: ServerState): Family[] {
  const { user, system } = process.cpuUsage();
  return [
    {
      name: "nixcache_build_info",
      help: "The version that runs.",
      type: "gauge",
      samples: [{ labels: { version: VERSION, commit: COMMIT, bun: Bun.version }, value: 1 }],
    },
    single("process_start_time_seconds", "Start of the process since 1970.", startedAt / 1000),
    single("process_resident_memory_bytes", "Memory that the process holds.", process.memoryUsage.rss()),
    single("process_cpu_seconds_total", "CPU time.", (user + system) / 1e6, "counter"),
  ];
}

function single(name: string, help: string, value: number, type: Family["type"] = "gauge"): Family {
  return { name, help, type, samples: [{ value }] };
}

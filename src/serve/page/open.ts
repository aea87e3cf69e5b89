/** The page of a server, with what it keeps while the server runs. */
import type { Host } from "../../host.ts";
import type { ServedCache } from "../cache.ts";
import { isContent, type Traffic } from "../traffic.ts";
import type { UpstreamStatus } from "../upstream-peer.ts";
import { keepCatalog } from "./catalogs.ts";
import type { TrafficCount, UpstreamOverview } from "./client/data.ts";
import { createPage, type Page } from "./page.ts";
import { createTrafficRing, INTERVAL_MS } from "./traffic-ring.ts";

export interface OpenPageOptions {
  readonly caches: readonly ServedCache[];
  readonly upstreams: () => readonly UpstreamStatus[];
  readonly traffic: Traffic;
  readonly version: string;
  readonly host: Host;
  readonly onError: (message: string) => void;
}

export function openPage(options: OpenPageOptions): { readonly answer: Page } & Disposable {
  const { host, traffic, version } = options;
  const open = new DisposableStack();
  const stop = new AbortController();
  open.defer(() => stop.abort());
  const caches = options.caches.map((cache) => ({
    cache,
    catalog: open.use(keepCatalog(cache.index, options.onError)),
  }));
  const ring = createTrafficRing(() => totals(traffic), host.now());
  void tickUntil(stop.signal, host, () => ring.tick());
  const answer = createPage({
    caches,
    upstreams: () => options.upstreams().map(upstreamOverview),
    traffic: ring,
    version,
    now: () => host.now(),
  });
  return { answer, [Symbol.dispose]: () => open.dispose() };
}

async function tickUntil(signal: AbortSignal, host: Host, tick: () => void): Promise<void> {
  for (;;) {
    await host.sleep(INTERVAL_MS, signal).catch(() => {});
    if (signal.aborted) return;
    tick();
  }
}

/** What Nix asked for; this page's own requests are no traffic of the cache. */
function totals(traffic: Traffic): TrafficCount {
  let [requests, bytes] = [0, 0];
  const sources: Record<string, number> = {};
  for (const [kind, counted] of traffic.kinds) {
    if (!isContent(kind)) continue;
    requests += counted.requests;
    bytes += counted.bytes;
    for (const [source, hits] of Object.entries(counted.hits)) {
      sources[source] = (sources[source] ?? 0) + hits;
    }
  }
  return { requests, bytes, sources };
}

function upstreamOverview({ url, state, lastError }: UpstreamStatus): UpstreamOverview {
  return {
    url,
    state: lastError === null ? state : `${state}: ${lastError}`,
    healthy: state === "up" || lastError === null,
  };
}

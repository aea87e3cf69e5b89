/** What the page asks for: bounded answers about the caches. */
import type { Catalog } from "../../cache/catalog.ts";
import { walkClosure } from "../../cache/closure.ts";
import { isStoreHash } from "../../nar/store-path.ts";
import type { ServedCache } from "../cache.ts";
import type { CatalogKeeper } from "./catalogs.ts";
import type {
  CacheOverview,
  ClosureData,
  Overview,
  PathsPage,
  PublishesPage,
  UpstreamOverview,
} from "./client/data.ts";
import { publishOf } from "./publish.ts";
import type { TrafficRing } from "./traffic-ring.ts";

const PATHS_PER_PAGE = 25;
const PUBLISHES_PER_PAGE = 10;

/** A NixOS system with a desktop has some 5,000 paths. */
const MAX_CLOSURE_PATHS = 20_000;
const LARGEST_PATHS = 100;

/** Characters of a search; a store path has up to 255. */
const MAX_SEARCH_LENGTH = 300;

export interface ShownCache {
  readonly cache: ServedCache;
  readonly catalog: CatalogKeeper;
}

export interface PageData {
  readonly caches: readonly ShownCache[];
  readonly upstreams: () => readonly UpstreamOverview[];
  readonly traffic: TrafficRing;
  readonly version: string;
  readonly now: () => number;
}

/** @returns undefined for what does not exist. */
export async function answerData(
  name: string,
  query: URLSearchParams,
  data: PageData,
  signal: AbortSignal,
): Promise<unknown> {
  if (name === "overview") return overview(data);
  const shown = data.caches[Number(query.get("cache") ?? 0)];
  if (shown === undefined) return undefined;
  switch (name) {
    case "paths":
      return paths(shown, query, signal);
    case "publishes":
      return publishes(shown, query);
    case "closure":
      return closure(shown, query.get("hash") ?? "", signal);
    default:
      return undefined;
  }
}

export function overview({ caches, upstreams, traffic, version, now }: PageData): Overview {
  return {
    version,
    now: now(),
    caches: caches.map(cacheOverview),
    upstreams: upstreams(),
    traffic: traffic.read(),
  };
}

function cacheOverview({ cache, catalog }: ShownCache): CacheOverview {
  const newest = catalog.newest();
  const latest = newest.latest();
  return {
    name: cache.store.name,
    generation: cache.generation ?? null,
    refreshedAt: cache.refreshedAt() ?? null,
    error: cache.lastError() ?? null,
    totals: newest.totals ?? catalog.complete()?.totals ?? null,
    counted: counted(newest, catalog),
    publishes: newest.publishCount(),
    latest: latest === undefined ? null : publishOf(latest),
  };
}

function counted(newest: Catalog, catalog: CatalogKeeper): number {
  return catalog.complete() === undefined ? newest.progress : 1;
}

async function paths(
  { catalog }: ShownCache,
  query: URLSearchParams,
  signal: AbortSignal,
): Promise<PathsPage> {
  const newest = catalog.newest();
  const text = (query.get("search") ?? "").slice(0, MAX_SEARCH_LENGTH);
  const after = query.get("after") ?? undefined;
  const search = { text, after: after === undefined ? undefined : parseCursor(after), limit: PATHS_PER_PAGE };
  const found = await catalog.pass((complete, pause) => complete.search(search, pause), signal);
  if (found === undefined) return { paths: [], next: null, matches: 0, counted: newest.progress };
  const last = found.paths.at(-1);
  return {
    paths: found.paths.map((path) => ({ ...path, added: path.added * 1000 })),
    next: found.hasMore && last !== undefined ? `${last.hash}-${last.name}` : null,
    matches: found.matches,
    counted: 1,
  };
}

/** A cursor is the base name of the last path; a wrong one starts somewhere else. */
function parseCursor(cursor: string): { hash: string; name: string } {
  const dash = cursor.indexOf("-");
  return { hash: cursor.slice(0, Math.max(0, dash)), name: cursor.slice(dash + 1) };
}

function publishes({ catalog }: ShownCache, query: URLSearchParams): PublishesPage {
  const page = catalog.newest().publishes(PUBLISHES_PER_PAGE, query.get("before") ?? undefined);
  const last = page.publishes.at(-1);
  return {
    publishes: page.publishes.map(publishOf),
    next: page.hasMore && last !== undefined ? last.name : null,
  };
}

/** Undefined for a path that the cache does not have. */
async function closure(
  { cache, catalog }: ShownCache,
  hash: string,
  signal: AbortSignal,
): Promise<ClosureData | undefined> {
  if (!isStoreHash(hash) || cache.view.narinfo(hash) === undefined) return undefined;
  const find = (of: string) => cache.view.narinfo(of);
  const { paths, elsewhere, cut } = await catalog.inTurn(
    (pause) => walkClosure(hash, find, { limit: MAX_CLOSURE_PATHS, pause }),
    signal,
  );
  let [narSize, fileSize] = [0, 0];
  for (const path of paths) {
    narSize += path.narSize;
    fileSize += path.fileSize ?? 0;
  }
  const largest = [...paths].sort((a, b) => b.narSize - a.narSize).slice(0, LARGEST_PATHS);
  return { paths: paths.length, narSize, fileSize, elsewhere, cut, largest };
}

/**
 * What the page asks the server for, as JSON. Times are milliseconds since 1970, sizes are bytes. Names, records and
 * addresses come from whoever published: they are data, never markup.
 */

/** `_page/overview` */
export interface Overview {
  readonly version: string;
  /** By the server's clock, which the ages on the page are counted from. */
  readonly now: number;
  readonly caches: readonly CacheOverview[];
  readonly upstreams: readonly UpstreamOverview[];
  readonly traffic: Traffic;
}

export interface CacheOverview {
  readonly name: string;
  /** The only generation that is served; null for the cache as it is now. */
  readonly generation: string | null;
  /** When the index was last known to be current; null before one was ever loaded. */
  readonly refreshedAt: number | null;
  /** Why the last refresh failed. */
  readonly error: string | null;
  /** Null while the paths are being counted. */
  readonly totals: { readonly paths: number; readonly narSize: number; readonly fileSize: number } | null;
  /** The share of the paths that has been counted, from 0 to 1. */
  readonly counted: number;
  readonly publishes: number;
  readonly latest: Publish | null;
}

export interface UpstreamOverview {
  readonly url: string;
  /** Such as `healthy`; null where nothing is known. */
  readonly state: string | null;
  readonly healthy: boolean;
}

export interface Traffic {
  /** When the server began to count. */
  readonly since: number;
  readonly intervalMs: number;
  /** The oldest first; the last one is under way. */
  readonly intervals: readonly TrafficCount[];
  /** Since the start of the server. */
  readonly total: TrafficCount;
}

export interface TrafficCount {
  readonly requests: number;
  /** Bytes of bodies. */
  readonly bytes: number;
  /** Answers by where they came from. */
  readonly sources: Readonly<Record<string, number>>;
}

/** `_page/paths?cache=0&search=TEXT&after=HASH-NAME` */
export interface PathsPage {
  readonly paths: readonly PathRow[];
  /** What `after` is for the next page; null on the last. */
  readonly next: string | null;
  readonly matches: number;
  /** Below 1 while the paths are still being counted: then there are none here. */
  readonly counted: number;
}

export interface PathRow {
  readonly hash: string;
  /** The name with its version. */
  readonly name: string;
  readonly narSize: number;
  /** Compressed; null where it is not known. */
  readonly fileSize: number | null;
  readonly added: number;
}

/** `_page/publishes?cache=0&before=ID` */
export interface PublishesPage {
  readonly publishes: readonly Publish[];
  /** What `before` is for the next page; null on the last. */
  readonly next: string | null;
}

export interface Publish {
  readonly id: string;
  /** By the publisher's clock; null when the record says none. */
  readonly time: number | null;
  readonly source: string;
  readonly tool: string;
  readonly system: string | null;
  readonly revision: string | null;
  /** Where the commit can be seen. */
  readonly revisionUrl: string | null;
  readonly runUrl: string | null;
  /** Number of paths. */
  readonly entries: number;
  /** The first of them, in the order of their names. */
  readonly roots: readonly Root[];
  readonly rootCount: number;
}

export interface Root {
  readonly attribute: string;
  readonly path: string;
  /** The store hash; null when it is no store path. */
  readonly hash: string | null;
}

/** `_page/closure?cache=0&hash=HASH` */
export interface ClosureData {
  readonly paths: number;
  readonly narSize: number;
  readonly fileSize: number;
  /** References that the cache does not have: upstream caches do. */
  readonly elsewhere: number;
  /** Whether there are more paths than were looked at. */
  readonly cut: boolean;
  readonly largest: readonly ClosureRow[];
}

export interface ClosureRow {
  readonly hash: string;
  readonly name: string;
  readonly narSize: number;
  readonly fileSize: number | null;
}

/** What `/_status` and `/metrics` tell of. */
import type { BlobCacheStatus } from "../oci/blob-cache.ts";
import type { ServedCache } from "./cache.ts";
import type { Traffic } from "./traffic.ts";
import type { Upstreams } from "./upstreams.ts";
import type { WriterStatus } from "./writer.ts";

export interface ServerState {
  readonly caches: readonly ServedCache[];
  readonly upstreams: Pick<Upstreams, "status">;
  readonly traffic: Traffic;
  /** Number of requests that are not fully answered yet. */
  readonly underWay: () => number;
  /** Milliseconds between two refreshes of the index. */
  readonly ttlMs: number;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  readonly now: () => number;
  /** Of the NARs on disk; undefined when none are kept. */
  readonly narCache?: (() => BlobCacheStatus) | undefined;
  /** Of uploads; undefined when none are accepted. */
  readonly writing?: (() => WriterStatus) | undefined;
}

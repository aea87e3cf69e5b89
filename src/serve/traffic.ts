/** What was asked for and answered since the start: counters that cost a request next to nothing. */
import type { Route } from "./route.ts";

/** Where an answer came from: the local index, uploads that are not published yet, NARs on disk, an upstream. */
export const HIT_SOURCES = ["cache", "journal", "disk", "upstream", "none"] as const;

export type HitSource = (typeof HIT_SOURCES)[number];

/** Upper bounds of the times until an answer begins, in seconds: a look-up, a registry, a slow upstream. */
export const LATENCY_BOUNDS_S = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10] as const;

/** What is asked for: a route, or to take something. */
export type Kind = Route["kind"] | "upload";

/** Of the requests of one kind. */
export class KindTraffic {
  /** Requests by the first digit of their status. */
  readonly statuses = new Float64Array(6);
  readonly hits: Record<HitSource, number> = { cache: 0, journal: 0, disk: 0, upstream: 0, none: 0 };
  /** Requests by the first bound that their time does not exceed; the last is beyond all bounds. */
  readonly latencies = new Float64Array(LATENCY_BOUNDS_S.length + 1);
  seconds = 0;
  /** Of bodies. */
  bytes = 0;

  /** @param seconds until the answer began */
  count(status: number, source: HitSource, seconds: number): void {
    const digit = Math.trunc(status / 100);
    this.statuses[digit] = (this.statuses[digit] ?? 0) + 1;
    this.hits[source]++;
    this.seconds += seconds;
    let bucket = 0;
    while (seconds > (LATENCY_BOUNDS_S[bucket] ?? Number.POSITIVE_INFINITY)) bucket++;
    this.latencies[bucket] = (this.latencies[bucket] ?? 0) + 1;
  }

  get requests(): number {
    return this.statuses.reduce((sum, count) => sum + count, 0);
  }
}

/** Kinds whose answers come from somewhere. */
const CONTENT: ReadonlySet<Kind> = new Set(["narinfo", "nar", "from", "listing", "attached"]);

export function isContent(kind: Kind): boolean {
  return CONTENT.has(kind);
}

export class Traffic {
  readonly #kinds = new Map<Kind, KindTraffic>();

  of(kind: Kind): KindTraffic {
    const known = this.#kinds.get(kind);
    if (known !== undefined) return known;
    const traffic = new KindTraffic();
    this.#kinds.set(kind, traffic);
    return traffic;
  }

  /** The kinds that were asked for, in the order in which they first were. */
  get kinds(): Iterable<[Kind, KindTraffic]> {
    return this.#kinds;
  }
}

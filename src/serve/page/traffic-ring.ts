/** Traffic of the last hour, in a ring of fixed size, made of counters that only grow. */
import type { Traffic, TrafficCount } from "./client/data.ts";

export const INTERVAL_MS = 60_000;
const INTERVALS = 60;

export interface TrafficRing {
  /** Ends an interval; to be called every INTERVAL_MS. */
  tick(): void;
  read(): Traffic;
}

/**
 * @param totals counters since the start
 * @param since when they began
 */
export function createTrafficRing(totals: () => TrafficCount, since: number): TrafficRing {
  const ended: TrafficCount[] = [];
  let begun = totals();
  return {
    tick() {
      const now = totals();
      ended.push(difference(now, begun));
      if (ended.length >= INTERVALS) ended.shift();
      begun = now;
    },
    read() {
      const total = totals();
      return { since, intervalMs: INTERVAL_MS, intervals: [...ended, difference(total, begun)], total };
    },
  };
}

function difference(now: TrafficCount, before: TrafficCount): TrafficCount {
  const sources = Object.entries(now.sources).map(([name, n]) => [name, n - (before.sources[name] ?? 0)]);
  return {
    requests: now.requests - before.requests,
    bytes: now.bytes - before.bytes,
    sources: Object.fromEntries(sources),
  };
}

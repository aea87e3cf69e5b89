/** How a cache is, in words. */
import type { CacheOverview } from "./data.ts";
import { formatAge } from "./format.ts";

type State = Pick<CacheOverview, "refreshedAt" | "error">;

export function stateClass({ refreshedAt, error }: State): string {
  if (error !== null) return "bad";
  return refreshedAt === null ? "waiting" : "good";
}

export function stateText({ refreshedAt, error }: State, now: number): string {
  if (refreshedAt === null) return error ?? "The index has not been loaded yet";
  const age = formatAge(now - refreshedAt);
  return error === null ? `Index checked ${age}` : `Index of ${age}; the last refresh failed: ${error}`;
}

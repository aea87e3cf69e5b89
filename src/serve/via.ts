/**
 * The way of a request through several nixcaches, in the Via header, so that caches that are each other's upstream
 * do not ask in circles. https://www.rfc-editor.org/rfc/rfc9110#name-via
 */

/** Requests that have come through more nixcaches than this are not passed on. */
const MAX_HOPS = 4;

const HOP = /\bnixcache-([0-9a-f]{16})\b/g;

/** The ids of the nixcaches that a request came through, the first one first. */
export function hopsOf(via: string | null): readonly string[] {
  return via === null ? [] : Array.from(via.matchAll(HOP), (found) => found[1] ?? "");
}

/** Whether upstreams may be asked on behalf of a request that came this way. */
export function mayPassOn(hops: readonly string[], ownId: string): boolean {
  return hops.length <= MAX_HOPS && !hops.includes(ownId);
}

export function formatVia(hops: readonly string[], ownId: string): string {
  return [...hops, ownId].map((id) => `1.1 nixcache-${id}`).join(", ");
}

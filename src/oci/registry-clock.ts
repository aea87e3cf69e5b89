/** What time it is at a registry: each of its answers says so in its Date header (RFC 9110, section 6.6.1). */

/** Outside of these the other side does not know the time, as after a start without a battery. */
const PLAUSIBLE = { from: Date.UTC(2020, 0, 1), until: Date.UTC(2200, 0, 1) } as const;

/** By how much the clock behind an answer is ahead of `now`, in ms; undefined where the answer does not tell. */
export function clockAheadMs(headers: Headers, now: number): number | undefined {
  // A cache on the way says when it got the answer.
  if (Number(headers.get("age") ?? 0) > 0) return undefined;
  const date = Date.parse(headers.get("date") ?? "");
  if (!(date >= PLAUSIBLE.from && date < PLAUSIBLE.until)) return undefined;
  // The header has whole seconds, cut off.
  return date + 500 - now;
}

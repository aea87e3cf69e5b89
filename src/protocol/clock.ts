/**
 * Whose clock counts. The names of generations have a time in them, and gc goes by it, so all machines that write to one
 * cache must mean the same time, give or take an hour (STORAGE-PROTOCOL). Each answer of a registry says what time it is
 * there: that clock is common to all of them.
 *
 * Which of two clocks is wrong cannot be known. So names are made by the registry's, and whoever deletes goes by the one
 * of the two that deletes less.
 */
import { type GenerationName, generationTime, segmentTag } from "../cache/tags.ts";
import { NixcacheError } from "../errors.ts";
import type { ProtocolContext } from "./context.ts";

type Clocks = Pick<ProtocolContext, "store" | "host">;

/** By how much the clocks of any two machines may differ. */
export const CLOCKS_APART_MS = 3_600_000;

/** Two machines that are this close to the registry's clock are close enough to each other. */
export const CLOCK_AHEAD_MS = CLOCKS_APART_MS / 2;

/** With clocks this far apart nothing is deleted: a tag that says since when something is over would say nothing. */
const MAX_AHEAD_MS = 24 * 3_600_000;

/** A generation that is named further ahead of now than this is not followed, so that others do not hide there too. */
const FOLLOWED_MS = 7 * 24 * 3_600_000;

/** How far the store's clock is ahead of ours, in ms; 0 where they agree, or it has none. */
function aheadMs({ store }: Clocks): number {
  const ahead = store.clockAheadMs?.() ?? 0;
  return Math.abs(ahead) <= CLOCK_AHEAD_MS ? 0 : ahead;
}

/** Now, by the clock that is common to all who write to the cache; milliseconds since 1970. */
export function cacheTime(context: Clocks): number {
  return context.host.now() + aheadMs(context);
}

/** Now, by the clock that makes everything look younger. */
export function earlierTime(context: Clocks): number {
  return context.host.now() + Math.min(0, aheadMs(context));
}

/** Now, by the clock that makes what is dated now last longer. */
export function laterTime(context: Clocks): number {
  return context.host.now() + Math.max(0, aheadMs(context));
}

/** The time for the name of a new generation. @param after the one that it succeeds, whose name is earlier */
export function timeForName(
  context: Clocks & Pick<ProtocolContext, "warn">,
  after: GenerationName | undefined,
): number {
  warnOfClocks(context);
  const now = cacheTime(context);
  if (after === undefined || generationTime(after) < now - 1000) return now;
  // Names tell generations apart by the second.
  const least = Math.max(now, generationTime(after) + 1000);
  if (least - now <= FOLLOWED_MS) return least;
  context.warn(
    `${segmentTag(after)} is named far ahead of now, ${timeText(now)}: its publisher's clock was wrong, or ours is. Until then it counts as newer than what is published now`,
  );
  return now;
}

/** Stores whose clock was told of, by what tells it. */
const told = new WeakSet<object>();

/** Tells once of each store that its clock and ours differ. */
export function warnOfClocks(context: Clocks & Pick<ProtocolContext, "warn">): void {
  const { clockAheadMs } = context.store;
  if (clockAheadMs === undefined || aheadMs(context) === 0 || told.has(clockAheadMs)) return;
  told.add(clockAheadMs);
  const [ours, theirs] = timesOf(context);
  context.warn(
    `the clock of this machine says ${ours}, that of ${context.store.name} ${theirs}: what is published is named by the registry's, and gc goes by the earlier. Set the clock that is wrong`,
  );
}

/** @throws `clock` where the two differ by over a day: then nobody can say how old anything is. */
export function requireClock(context: Clocks): void {
  if (Math.abs(aheadMs(context)) <= MAX_AHEAD_MS) return;
  const [ours, theirs] = timesOf(context);
  throw new NixcacheError(
    "clock",
    `the clock of this machine says ${ours}, that of ${context.store.name} ${theirs}: nothing was ended or deleted`,
    { hint: "Set the clock that is wrong, such as with timedatectl set-ntp true." },
  );
}

/** What our clock says, and the store's. */
function timesOf(context: Clocks): [string, string] {
  return [timeText(context.host.now()), timeText(cacheTime(context))];
}

function timeText(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

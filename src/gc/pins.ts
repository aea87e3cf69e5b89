/**
 * Which generations of a pin are over, by what its newest one says. Of those that end, the one that says so ends
 * last: an older one that was left alone would be a pin without an end.
 */
import type { Pin, PinPlace } from "../cache/pin.ts";
import { type GenerationName, generationTime, segmentTag } from "../cache/tags.ts";
import { MIN_AGE_MS } from "../protocol/end.ts";
import { days, ends, stays, staysForItsAge, type Verdict } from "./verdict.ts";

export function judgePin(pin: Pin, now: number): Map<GenerationName, Verdict> {
  const firstUnpin = pin.generations.find(({ place }) => place.kind === "unpin")?.name;
  return new Map(
    pin.generations.map(({ name, place }) => {
      if (now - generationTime(name) < MIN_AGE_MS) return [name, staysForItsAge()];
      const verdict = judge(pin, place, now);
      const last = verdict.ends && (name === pin.newest?.name || name === firstUnpin);
      return [name, last ? { ...verdict, last } : verdict];
    }),
  );
}

function judge(pin: Pin, place: PinPlace, now: number): Verdict {
  const { name, keepRevisions, until } = pin;
  if (place.kind === "unpin")
    return ends("unpinned", `all that it had to say is that the pin ${name} is over`);
  if (place.kind === "unpinned") return ends("unpinned", `${segmentTag(place.by)} ended the pin ${name}`);
  if (until !== undefined && now >= until) {
    const keepDays = days((pin.newest?.record.keepDays ?? 0) * 86_400_000);
    return ends("pin-days", `the pin ${name} was for ${keepDays}, until ${new Date(until).toISOString()}`);
  }
  const end = until === undefined ? "" : ` until ${new Date(until).toISOString()}`;
  if (keepRevisions === Number.POSITIVE_INFINITY) return stays("pin", `held by the pin ${name}${end}`);
  if (place.kind === "repeated") {
    return ends("pin-revision", `${segmentTag(place.by)} is of the pin ${name} too, and holds the same`);
  }
  if (place.rank === 0) return stays("pin", `held by the pin ${name}${end}`);
  if (place.rank < keepRevisions)
    return stays("pin", `held by the pin ${name}, one of its last ${keepRevisions} revisions`);
  const kept = keepRevisions === 1 ? "its newest revision" : `its last ${keepRevisions} revisions`;
  return ends("pin-revision", `the pin ${name} keeps ${kept}`);
}

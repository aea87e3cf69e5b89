/** Unpinning: what of the pin is old enough ends at once; for the rest one more generation says that the pin is over. */
import { pinsOf } from "../cache/pin.ts";
import { PIN_PREFIX } from "../cache/record.ts";
import { type GenerationName, generationTime } from "../cache/tags.ts";
import { NixcacheError, preview } from "../errors.ts";
import { earlierTime, requireClock } from "../protocol/clock.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { endGenerations, MIN_AGE_MS } from "../protocol/end.ts";
import { foldOrWarn } from "../protocol/fold.ts";
import { refresh } from "../protocol/refresh.ts";
import { restate, restatedRecord } from "../protocol/restate.ts";

export interface Unpinned {
  readonly ended: readonly GenerationName[];
  /** Generations that are too young, which a gc ends once they are a day old. */
  readonly waiting: readonly GenerationName[];
}

/** @throws `absent` when there is no such pin; `clock`, before anything changes; what the store throws */
export async function unpin(context: ProtocolContext, name: string, tool: string): Promise<Unpinned> {
  await refresh(context, { list: true });
  requireClock(context);
  const { view } = context.database;
  const pins = pinsOf(view.generations());
  const pin = pins.get(name);
  if (pin?.newest === undefined)
    throw unknownPin(
      name,
      [...pins.values()].flatMap((pin) => (pin.newest ? pin.name : [])),
    );
  const names = pin.generations.map((generation) => generation.name);
  const now = earlierTime(context);
  const waiting = names.filter((generation) => now - generationTime(generation) < MIN_AGE_MS);
  if (waiting.length > 0) {
    // A record without entries: what gc knows is in the tags, on whatever machine it runs.
    const record = restatedRecord(view, { tool, source: PIN_PREFIX + name, roots: {} }, [], now);
    waiting.unshift(await restate(context, record, [], { after: names[0] }));
  }
  // The newest last: without it an older one would be a pin again.
  const ended = await endGenerations(context, names, MIN_AGE_MS, new Set([pin.newest.name]));
  if (ended.length === 0) await foldOrWarn(context);
  return { ended, waiting };
}

function unknownPin(name: string, known: readonly string[]): NixcacheError {
  const hint =
    known.length === 0
      ? "There are no pins."
      : `The pins are ${known.slice(0, 20).join(", ")}${known.length > 20 ? ", …" : ""}.`;
  return new NixcacheError("absent", `there is no pin ${preview(name)}`, { hint });
}

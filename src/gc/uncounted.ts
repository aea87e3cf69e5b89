/**
 * Generations that none of the given keys has signed. They end nothing, and nothing ends for them; but those that signed
 * generations have succeeded would stay for ever, as would what strangers leave behind.
 */
import type { Generation } from "../cache/index-layer.ts";
import { lineOf, PATHS_SOURCE } from "../cache/record.ts";
import { generationTime, segmentTag } from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import { CLOCKS_APART_MS } from "../protocol/clock.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { readSegment } from "../protocol/segment.ts";
import type { Decision, Policy } from "./plan.ts";
import { days, ends, stays } from "./verdict.ts";

/** Read in one run, at most: a stranger may write as many as they like. The others are read by the next runs. */
const MAX_READ = 1_000;

/** Those that can be read, the oldest first. */
export async function readUncounted(context: ProtocolContext): Promise<Generation[]> {
  const names = [...context.database.view.unsigned()].sort().slice(0, MAX_READ);
  const read = await mapConcurrently(names, context.concurrency, async (name) => {
    try {
      const header = await readSegment({ ...context, trust: {} }, name, () => {});
      return header && { name, record: header.record };
    } catch (error) {
      // It says nothing that it could be judged by.
      if (error instanceof NixcacheError && error.code === "corrupt") return undefined;
      throw error;
    }
  });
  return read.filter((generation) => generation !== undefined);
}

/** @param counted those that count, whatever becomes of them; of those named ahead of now nothing ends for them */
export function judgeUncounted(
  uncounted: readonly Generation[],
  counted: readonly Generation[],
  { retentionMs }: Policy,
  now: number,
): Decision[] {
  const past = counted.filter(({ name }) => generationTime(name) - now <= CLOCKS_APART_MS);
  const byLine = Map.groupBy(past, ({ record }) => lineOf(record));
  return uncounted.map((generation) => {
    const { name, record } = generation;
    const age = now - generationTime(name);
    if (age < retentionMs)
      return { ...generation, ...stays("unsigned", `not signed, and younger than ${days(retentionMs)}`) };
    const bare = record.source === PATHS_SOURCE;
    const successor = byLine
      .get(lineOf(record))
      ?.findLast((other) => other.name > name && !other.record.partial);
    if (!bare && successor === undefined)
      return { ...generation, ...stays("unsigned", "not signed, and nothing that is signed came after it") };
    const why =
      successor === undefined ? "bare paths live no longer" : `${segmentTag(successor.name)} succeeded it`;
    return { ...generation, ...ends("unsigned", `not signed, older than ${days(retentionMs)}, and ${why}`) };
  });
}

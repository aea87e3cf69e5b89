/**
 * The current outputs of a flake as the newest generation of their line: what the cache has of their closures,
 * restated. Outputs are evaluated and not built, so the cache may lack some. Then the generation is a partial one,
 * which ends nothing that came before: what was published last stays until its successor is there.
 */
import type { EntryLine } from "../cache/entry.ts";
import type { Generation } from "../cache/index-layer.ts";
import { type PublishRecord, sameLine } from "../cache/record.ts";
import { boundedRoots } from "../cache/roots.ts";
import { type GenerationName, generationName, generationTime } from "../cache/tags.ts";
import { randomId } from "../host.ts";
import { storeHashOf } from "../nar/store-path.ts";
import { cacheTime, timeForName } from "../protocol/clock.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { MIN_AGE_MS } from "../protocol/end.ts";
import { foldOrWarn } from "../protocol/fold.ts";
import { closureLines, type RestatedOrigin, restate, restatedRecord } from "../protocol/restate.ts";

export interface CurrentOutputs {
  /** Names as a publish of them records them, and store paths. */
  readonly outputs: readonly (readonly [string, string])[];
  /** What that publish would say of itself. */
  readonly origin: Omit<RestatedOrigin, "roots" | "partial">;
  /** URL of the source repository. */
  readonly repository?: string | undefined;
}

export interface Current {
  /** Undefined when the cache has nothing of the outputs. */
  readonly generation: Generation | undefined;
  readonly lines: readonly EntryLine[];
  readonly lacking: readonly { readonly output: string; readonly path: string }[];
  /** Whether the newest generation of its line says the same and is young (rule 7). */
  readonly isUnchanged: boolean;
  readonly after: GenerationName | undefined;
}

export function currentGeneration(context: ProtocolContext, { outputs, origin }: CurrentOutputs): Current {
  const { view } = context.database;
  const generations = view.generations();
  // What was published and is not in the index, upstream has.
  const published = new Set(generations.flatMap(({ record }) => Object.values(record.roots)));
  const has = (path: string) => published.has(path) || view.narinfo(storeHashOf(path)) !== undefined;
  const lacking = outputs.flatMap(([output, path]) => (has(path) ? [] : [{ output, path }]));
  const had = outputs.filter(([, path]) => has(path));
  const { lines } = closureLines(
    view,
    had.map(([, path]) => storeHashOf(path)),
  );
  if (lines.length === 0)
    return { generation: undefined, lines, lacking, isUnchanged: false, after: undefined };
  const now = cacheTime(context);
  const partial = lacking.length > 0 && { partial: true as const };
  const record = restatedRecord(view, { ...origin, roots: boundedRoots(had), ...partial }, lines, now);
  const newest = generations.findLast((generation) => sameLine(generation.record, record));
  return {
    generation: { name: generationName(timeForName(context, newest?.name), randomId(context.host)), record },
    lines,
    lacking,
    isUnchanged: newest !== undefined && isYoungAndSame(newest, record, now),
    after: newest?.name,
  };
}

function isYoungAndSame({ name, record: before }: Generation, record: PublishRecord, now: number): boolean {
  return (
    before.content === record.content &&
    before.partial === record.partial &&
    JSON.stringify(before.roots) === JSON.stringify(record.roots) &&
    Math.abs(now - generationTime(name)) < MIN_AGE_MS
  );
}

/** Commits it, unless there is nothing to say. Answers the generation under its name. */
export async function commitCurrent(
  context: ProtocolContext,
  { generation, lines, isUnchanged, after }: Current,
  repository: string | undefined,
): Promise<Generation | undefined> {
  if (generation === undefined || isUnchanged) return undefined;
  const name = await restate(context, generation.record, lines, { after, source: repository });
  await foldOrWarn(context);
  return { name, record: generation.record };
}

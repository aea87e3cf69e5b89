/** Pinning: the closure of a path becomes a generation of the source `pin:NAME`, which gc leaves alone. */
import { pinsOf } from "../cache/pin.ts";
import { PIN_PREFIX, type PublishRecord } from "../cache/record.ts";
import { type GenerationName, generationTime } from "../cache/tags.ts";
import { NixcacheError, preview } from "../errors.ts";
import { storeHashOf } from "../nar/store-path.ts";
import { cacheTime } from "../protocol/clock.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { MIN_AGE_MS } from "../protocol/end.ts";
import { foldOrWarn } from "../protocol/fold.ts";
import { refresh } from "../protocol/refresh.ts";
import { closureLines, type RestatedOrigin, restate, restatedRecord } from "../protocol/restate.ts";
import { findWanted, type Wanted } from "./find.ts";

/** How long a pin lives. */
export interface PinTerms {
  /** From its newest revision on; without it for ever. */
  readonly keepDays?: number | undefined;
  readonly keepRevisions: number;
}

export interface Pinned {
  /** Null when the pin says the very same already. */
  readonly generation: GenerationName | null;
  readonly storePath: string;
  /** Paths of its closure that the cache has, and the number of those that upstream caches have. */
  readonly paths: number;
  readonly elsewhere: number;
}

/** As the name of a file or a release: shown in lists, and typed. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._+@/-]{0,127}$/;

/** @throws `usage` */
export function checkPinName(name: string): string {
  if (NAME.test(name)) return name;
  throw new NixcacheError(
    "usage",
    `got ${preview(name)} as the name of a pin, expected 1 to 128 of A-Z a-z 0-9 . _ + @ / -, the first one a letter or digit`,
  );
}

/**
 * @param resolveLink as `findWanted` has it
 * @throws as `findWanted`, and as `restate`; then nothing was pinned
 */
export async function pin(
  context: ProtocolContext,
  name: string,
  wanted: Wanted,
  { keepDays, keepRevisions }: PinTerms,
  { tool, resolveLink }: { tool: string; resolveLink: (path: string) => Promise<string> },
): Promise<Pinned> {
  checkPinName(name);
  await refresh(context, { list: true });
  const { view } = context.database;
  const { label, storePath, from } = await findWanted(view, wanted, resolveLink);
  const { lines, elsewhere } = closureLines(view, [storeHashOf(storePath)]);
  const { system, branch, revision } = from?.record ?? {};
  const origin: RestatedOrigin = {
    tool,
    source: PIN_PREFIX + name,
    roots: { [label]: storePath },
    ...(system !== undefined && { system }),
    ...(branch !== undefined && { branch }),
    ...(revision !== undefined && { revision }),
    ...(keepDays !== undefined && { keepDays }),
    keepRevisions,
  };
  const now = cacheTime(context);
  const record = restatedRecord(view, origin, lines, now);
  const before = pinsOf(view.generations()).get(name)?.generations[0];
  const result = { storePath, paths: lines.length, elsewhere: elsewhere.size };
  if (before && saysTheSame(before.record, record) && now - generationTime(before.name) < MIN_AGE_MS)
    return { generation: null, ...result };
  const generation = await restate(context, record, lines, { after: before?.name });
  await foldOrWarn(context);
  return { generation, ...result };
}

/** A pin for some days lives longer from each time on that it is pinned. */
function saysTheSame(before: PublishRecord, record: PublishRecord): boolean {
  const { time: _, tool: __, keys: ___, ...a } = before;
  const { time: ____, tool: _____, keys: ______, ...b } = record;
  return record.keepDays === undefined && Bun.deepEquals(a, b);
}

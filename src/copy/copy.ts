/**
 * One cache into another: its live generations, each whole, under the same tags. Only what is missing there moves, so
 * a copy that was killed goes on where it stopped, and one that is repeated brings what is new.
 */
import {
  type GenerationId,
  type GenerationName,
  generationId,
  parseGenerationName,
  parseTag,
  segmentTag,
  V1_TAG,
} from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import { NixcacheError, preview } from "../errors.ts";
import { discardBlob } from "../oci/spool.ts";
import type { Store } from "../oci/store.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { foldOrWarn } from "../protocol/fold.ts";
import { GenerationWriter } from "../protocol/generation.ts";
import { isStrict } from "../protocol/strictness.ts";
import { statTag } from "../protocol/tagged.ts";
import { BlobCopier, type CopiedBlobs } from "./blobs.ts";
import { type Destination, hasHolds, writeGeneration } from "./generation.ts";
import { copyRoot } from "./root.ts";
import { fromSource, type HoldTags, readGeneration, SourceDamaged } from "./source.ts";

/** Small generations are a few requests one after the other. */
const GENERATIONS_AT_ONCE = 4;

export interface CopyProgress {
  /** How many generations there are to look at. */
  planned(generations: number): void;
  /** After each generation and each blob. */
  moved(state: { readonly generations: number; readonly blobs: CopiedBlobs }): void;
}

export interface CopyContext extends ProtocolContext {
  /** Where from; all else is about the destination. */
  readonly source: Store;
  readonly progress: CopyProgress;
}

export interface CopyReport {
  /** The newest first. */
  readonly copied: readonly GenerationName[];
  /** Generations that were there before. */
  readonly present: number;
  /** Those that a gc of the destination has ended: they stay ended there. */
  readonly over: readonly GenerationName[];
  /** Those that ended at the source meanwhile. */
  readonly gone: readonly GenerationName[];
  /** Those that none of the given keys has signed, which were left out. */
  readonly unsigned: readonly GenerationName[];
  /** Those that are damaged at the source, which were left out. */
  readonly damaged: readonly { readonly generation: GenerationName; readonly reason: string }[];
  readonly blobs: CopiedBlobs;
}

/**
 * @param only names of generations, with or without `seg-`; by default all that live
 * @throws `absent` when there is nothing to copy; what the stores throw. What is complete by then stays.
 */
export async function copyCache(context: CopyContext, only?: readonly string[]): Promise<CopyReport> {
  const { source, store, signal, progress } = context;
  const from = readTags(await source.listTags({ signal }));
  const names = only === undefined ? allLive(from, source.name) : await chosen(context, from, only);
  const to = readTags(await store.listTags({ signal }));
  let done = 0;
  const moved = () => progress.moved({ generations: done, blobs: copier.counts });
  const keeper = new GenerationWriter(context, {});
  const copier = new BlobCopier(source, context, keeper, moved);
  progress.planned(names.length);

  const destination = { context, copier, keeper, strict: await isStrict(context) };
  const copy = new GenerationCopy(source, destination, from, to);
  // The newest first: whoever reads a copy that is not complete finds what is wanted most.
  const outcomes = await mapConcurrently(
    names.sort().reverse(),
    Math.min(GENERATIONS_AT_ONCE, context.concurrency),
    async (name) => {
      const outcome = await copy.one(name);
      done++;
      moved();
      return outcome;
    },
  );
  if (only === undefined) await copyRoot(context, source, copier);
  await foldOrWarn(context);

  const withOutcome = (wanted: Outcome) => names.filter((_, i) => outcomes[i] === wanted);
  return {
    copied: withOutcome("copied"),
    present: withOutcome("present").length,
    over: withOutcome("over"),
    gone: withOutcome("gone"),
    unsigned: withOutcome("unsigned"),
    damaged: names.flatMap((generation, i) => {
      const outcome = outcomes[i];
      return typeof outcome === "object" ? [{ generation, reason: outcome.damaged }] : [];
    }),
    blobs: copier.counts,
  };
}

/** What a tag list tells. It may lack what was pushed lately (R7). */
interface TagList {
  /** The tag of each. */
  readonly segments: ReadonlyMap<GenerationName, string>;
  readonly dead: ReadonlySet<GenerationId>;
  /** The tags of holds, by their numbers. */
  readonly holds: ReadonlyMap<GenerationName, HoldTags>;
  readonly isOld: boolean;
}

function readTags(tags: readonly string[]): TagList {
  const segments = new Map<GenerationName, string>();
  const dead = new Set<GenerationId>();
  const holds = new Map<GenerationName, Map<number, string>>();
  for (const tag of tags) {
    const parsed = parseTag(tag);
    if (parsed?.kind === "segment") segments.set(parsed.name, tag);
    if (parsed?.kind === "dead") dead.add(parsed.id);
    if (parsed?.kind === "hold")
      holds.set(parsed.name, (holds.get(parsed.name) ?? new Map()).set(parsed.number, tag));
  }
  return { segments, dead, holds, isOld: tags.includes(V1_TAG) };
}

function allLive({ segments, dead, isOld }: TagList, where: string): GenerationName[] {
  const live = [...segments.keys()].filter((name) => !dead.has(generationId(name)));
  if (live.length > 0) return live;
  if (segments.size > 0)
    throw nothing(`all generations of ${where} are over`, "There is nothing left to copy.");
  if (isOld) {
    throw nothing(
      `${where} has no generations: it is a cache of nixcache-oci, whose index is not copied`,
      "Publish to it or run nixcache gc on it once, which adopts what it has; then copy it.",
    );
  }
  throw nothing(`${where} has no generations`, "Check the name of the cache; a folder may not be there yet.");
}

async function chosen(
  { source, signal }: CopyContext,
  { dead }: TagList,
  only: readonly string[],
): Promise<GenerationName[]> {
  const names = [...new Set(only.map(nameIn))];
  for (const name of names) {
    if (dead.has(generationId(name))) throw nothing(`the generation ${name} of ${source.name} is over`);
    // By its exact tag: a list may lack it.
    if ((await statTag(source, segmentTag(name), { signal })) === undefined)
      throw nothing(`${source.name} has no generation ${name}`);
  }
  return names;
}

function nameIn(text: string): GenerationName {
  const bare = text.replace(/^seg-/, "");
  const name = parseGenerationName(bare);
  if (name !== undefined) return name;
  throw new NixcacheError(
    "usage",
    `--generation: got ${preview(bare)}, expected a name such as 20261123t175346z-0123456789abcdef`,
  );
}

function nothing(message: string, hint?: string): NixcacheError {
  return new NixcacheError("absent", message, hint === undefined ? {} : { hint });
}

type Outcome = "copied" | "present" | "over" | "gone" | "unsigned" | { readonly damaged: string };

const NO_HOLDS: HoldTags = new Map();

class GenerationCopy {
  readonly #source: Store;
  readonly #destination: Destination;
  readonly #from: TagList;
  readonly #to: TagList;

  constructor(source: Store, destination: Destination, from: TagList, to: TagList) {
    this.#source = source;
    this.#destination = destination;
    this.#from = from;
    this.#to = to;
  }

  async one(name: GenerationName): Promise<Outcome> {
    if (this.#to.dead.has(generationId(name))) return "over";
    if (await this.#isThere(name)) return "present";
    try {
      return await this.#copy(name);
    } catch (error) {
      if (!(error instanceof SourceDamaged)) throw error;
      // It was alive when the tags were listed; what it alone held may be gone since.
      const { signal } = this.#destination.context;
      const isGone = (await statTag(this.#source, segmentTag(name), { signal })) === undefined;
      return isGone ? "gone" : { damaged: error.message };
    }
  }

  /** With its holds: one of them may have been lost since, or a copy killed before it had looked for them. */
  async #isThere(name: GenerationName): Promise<boolean> {
    if (!this.#to.segments.has(name)) return false;
    const holds = this.#from.holds.get(name);
    return hasHolds(this.#destination.context, [...(holds?.values() ?? [])]);
  }

  async #copy(name: GenerationName): Promise<Outcome> {
    const { context } = this.#destination;
    const { segments, holds } = this.#from;
    const listed = { segment: segments.get(name) ?? segmentTag(name), holds: holds.get(name) ?? NO_HOLDS };
    const generation = await fromSource(() => readGeneration(this.#source, context, name, listed));
    if (generation === undefined) return "gone";
    if (generation === "unsigned") return generation;
    try {
      await writeGeneration(this.#destination, generation);
      return "copied";
    } finally {
      discardBlob(generation.index);
    }
  }
}

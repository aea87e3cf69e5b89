/** The generations of a cache that can be looked at: those that live, and those that gc has ended and not yet deleted. */
import type { Generation } from "../cache/index-layer.ts";
import { type GenerationId, type GenerationName, generationId, parseTag } from "../cache/tags.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { refresh } from "../protocol/refresh.ts";

export interface EndedGeneration {
  readonly name: GenerationName;
  /** When gc ended it, in milliseconds since 1970; undefined where the tag that says so is not listed. */
  readonly endedAt: number | undefined;
}

export interface KnownGenerations {
  /** The oldest first. */
  readonly live: readonly Generation[];
  /** Those whose segments are still there, the oldest first. */
  readonly ended: readonly EndedGeneration[];
}

/** Brings the local index up to date on the way. @throws when the cache cannot be read */
export async function knownGenerations(context: ProtocolContext): Promise<KnownGenerations> {
  const { store, database, signal } = context;
  await refresh(context, { list: true });
  const tags = (await store.listTags({ signal })).map(parseTag);
  const endings = new Map<GenerationId, number | undefined>();
  for (const id of database.view.dead()) endings.set(id, undefined);
  for (const tag of tags) {
    if (tag?.kind !== "dead") continue;
    // Two runs of gc at once may both have ended it.
    endings.set(tag.id, Math.min(tag.since, endings.get(tag.id) ?? tag.since));
  }
  const segments = new Set(tags.flatMap((tag) => (tag?.kind === "segment" ? [tag.name] : [])));
  const ended = [...segments].sort().flatMap((name) => {
    const id = generationId(name);
    return endings.has(id) ? [{ name, endedAt: endings.get(id) }] : [];
  });
  return { live: database.view.generations(), ended };
}

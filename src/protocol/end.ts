/**
 * gc's side of the storage protocol: ends generations, and a day later frees what they alone held
 * (STORAGE-PROTOCOL, "gc"). Which generations are over is decided elsewhere, from their publish records.
 */
import {
  deadTag,
  type GenerationName,
  generationId,
  generationTime,
  parseTag,
  segmentTag,
} from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import type { Digest } from "../oci/digest.ts";
import { MEDIA_TYPE_MANIFEST } from "../oci/manifest.ts";
import type { ProtocolContext } from "./context.ts";
import { fold } from "./fold.ts";

const HOUR_MS = 3_600_000;

/** The longest transfer: a generation younger than this may be one that its publisher still relies on. */
const MIN_AGE_MS = 24 * HOUR_MS;

/** A reader's view may be a day old, and two clocks an hour apart from a third. */
const DEAD_FOR_MS = 26 * HOUR_MS;

/** A publisher holds again under a new name after a day, so a hold this old has lost its publisher. */
const HOLD_FOR_MS = 7 * 24 * HOUR_MS;

/**
 * Ends generations, for ever: brings up a root without them, then tags each dead. Those younger than a day are
 * passed over. Answers which ones ended.
 */
export async function endGenerations(
  context: ProtocolContext,
  names: readonly GenerationName[],
): Promise<GenerationName[]> {
  const { store, host, concurrency, signal } = context;
  const over = names.filter((name) => host.now() - generationTime(name) >= MIN_AGE_MS);
  if (over.length === 0) return [];
  await fold(context, new Set(over));
  const ended = await mapConcurrently(over, concurrency, async (name) => {
    const segment = await store.readManifest(segmentTag(name), { signal });
    if (segment === undefined || segment === "unchanged") return undefined;
    const tag = deadTag(name, host.now());
    const written = await store.writeManifest(tag, segment.mediaType || MEDIA_TYPE_MANIFEST, segment.bytes, {
      signal,
    });
    return typeof written === "string" ? name : undefined;
  });
  return ended.filter((name) => name !== undefined);
}

export interface Sweep {
  /** Manifests deleted, of generations and of holds. */
  readonly deleted: readonly Digest[];
  /** What the registry does not let us delete. */
  readonly refused: readonly Digest[];
}

/** Deletes generations that have been dead for over a day, and holds that lost their generation. */
export async function sweep(context: ProtocolContext): Promise<Sweep> {
  const { store, host, signal } = context;
  const tags = await store.listTags({ signal });
  const parsed = tags.map((tag) => ({ tag, parsed: parseTag(tag) }));
  const gone = new Set<string>();
  const deleted: Digest[] = [];
  const refused: Digest[] = [];

  const remove = async (tag: string): Promise<boolean> => {
    const digest = await store.statManifest(tag, { signal });
    if (digest === undefined) return true;
    const answer = await store.deleteManifest(digest, { signal });
    (answer === "refused" ? refused : deleted).push(digest);
    return answer !== "refused";
  };

  for (const { tag, parsed: dead } of parsed) {
    if (dead?.kind !== "dead" || gone.has(dead.id) || host.now() - dead.since < DEAD_FOR_MS) continue;
    // One deletion removes both tags: they have one digest.
    if (await remove(tag)) gone.add(dead.id);
  }
  for (const { tag, parsed: hold } of parsed) {
    if (hold?.kind !== "hold") continue;
    const orphan =
      gone.has(generationId(hold.name)) ||
      (host.now() - generationTime(hold.name) >= HOLD_FOR_MS &&
        (await store.statManifest(segmentTag(hold.name), { signal })) === undefined);
    if (orphan) await remove(tag);
  }
  return { deleted, refused };
}

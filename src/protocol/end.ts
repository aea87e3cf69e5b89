/**
 * gc's side of the storage protocol: ends generations, and a day later frees what they alone held
 * (STORAGE-PROTOCOL, "gc"). Which generations are over is decided elsewhere, from their publish records.
 */
import { holdManifest } from "../cache/manifests.ts";
import {
  deadTag,
  type GenerationName,
  generationId,
  generationTime,
  parseTag,
  segmentTag,
} from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import { randomId } from "../host.ts";
import type { Digest } from "../oci/digest.ts";
import { EMPTY_CONFIG, MEDIA_TYPE_MANIFEST } from "../oci/manifest.ts";
import type { ProtocolContext } from "./context.ts";
import { writeEmptyConfig } from "./empty-config.ts";
import { fold } from "./fold.ts";

const HOUR_MS = 3_600_000;

/** The longest transfer: a generation younger than this may be one that its publisher still relies on. */
const MIN_AGE_MS = 24 * HOUR_MS;

/** A reader's view may be a day old, and two clocks an hour apart from a third. */
const DEAD_FOR_MS = 26 * HOUR_MS;

/** A publisher holds again under a new name after a day, so a hold this old has lost its publisher. */
const HOLD_FOR_MS = 7 * 24 * HOUR_MS;

/**
 * Ends generations, for ever: brings up a root without them, then tags each dead. Answers which ones ended.
 * @param minAgeMs younger ones are passed over. Less than a day only for a generation that is damaged anyway.
 */
export async function endGenerations(
  context: ProtocolContext,
  names: readonly GenerationName[],
  minAgeMs: number = MIN_AGE_MS,
): Promise<GenerationName[]> {
  const { host, concurrency } = context;
  const over = names.filter((name) => host.now() - generationTime(name) >= minAgeMs);
  if (over.length === 0) return [];
  await fold(context, new Set(over));
  const ended = await mapConcurrently(over, concurrency, (name) => markDead(context, name));
  return over.filter((_, i) => ended[i]);
}

async function markDead(context: ProtocolContext, name: GenerationName): Promise<boolean> {
  const { store, host, signal } = context;
  const segment = await store.readManifest(segmentTag(name), { signal });
  if (segment === undefined || segment === "unchanged") return false;
  const tag = deadTag(name, host.now());
  // The same bytes have the same digest, so that one deletion removes both tags.
  const written = await store.writeManifest(tag, segment.mediaType, segment.bytes, { signal });
  if (typeof written === "string") return true;
  // A segment whose blobs are gone cannot be put again: what hides it then is a manifest of nothing.
  await writeEmptyConfig(store, { signal });
  const notes = { created: new Date(host.now()).toISOString(), nonce: randomId(host) };
  const nothing = holdManifest([EMPTY_CONFIG], notes);
  return typeof (await store.writeManifest(tag, MEDIA_TYPE_MANIFEST, nothing, { signal })) === "string";
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
    // The segment first: without its dead tag it would be alive again.
    const segment = parsed.find((other) => other.parsed?.kind === "segment" && other.tag.endsWith(dead.id));
    if ((segment === undefined || (await remove(segment.tag))) && (await remove(tag))) gone.add(dead.id);
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

/**
 * gc's side of the storage protocol: ends generations, and a day later frees what they alone held
 * (STORAGE-PROTOCOL, "gc"). Which generations are over is decided elsewhere, from their publish records.
 */
import { holdManifest, ROOT_TYPE } from "../cache/manifests.ts";
import {
  adoptedTag,
  deadTag,
  type GenerationId,
  type GenerationName,
  generationId,
  generationTime,
  parseTag,
  segmentTag,
  type Tag,
  V1_TAG,
} from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import { randomId } from "../host.ts";
import type { Digest } from "../oci/digest.ts";
import { decodeManifest, EMPTY_CONFIG, MEDIA_TYPE_MANIFEST } from "../oci/manifest.ts";
import type { BlobsMissing, CallOptions, StoredManifest } from "../oci/store.ts";
import { earlierTime, laterTime, requireClock } from "./clock.ts";
import type { ProtocolContext } from "./context.ts";
import { writeEmptyConfig } from "./empty-config.ts";
import { fold } from "./fold.ts";
import { holdOwner } from "./hold-owner.ts";
import { readTag } from "./tagged.ts";
import { findV1 } from "./v1-index.ts";

const HOUR_MS = 3_600_000;

/** The longest transfer: a generation younger than this may be one that its publisher still relies on. */
export const MIN_AGE_MS = 24 * HOUR_MS;

/** A reader's view may be a day old, and two clocks an hour apart from a third. */
const DEAD_FOR_MS = 26 * HOUR_MS;

/** A publisher holds again under a new name after a day, so a hold this old has lost its publisher. */
const HOLD_FOR_MS = 7 * 24 * HOUR_MS;

/**
 * Ends generations, for ever: brings up a root without them, then tags each dead. Answers which ones ended.
 * @param minAgeMs younger ones are passed over. Less than a day only for a generation that is damaged anyway.
 * @param last these are tagged once the others are: whoever is killed in between leaves them alive
 * @throws `clock` where nobody can say how old they are; what the store throws
 */
export async function endGenerations(
  context: ProtocolContext,
  names: readonly GenerationName[],
  minAgeMs: number = MIN_AGE_MS,
  last: ReadonlySet<GenerationName> = new Set(),
): Promise<GenerationName[]> {
  const { concurrency } = context;
  const now = earlierTime(context);
  const over = names.filter((name) => now - generationTime(name) >= minAgeMs);
  if (over.length === 0) return [];
  requireClock(context);
  await keepAdopted(context, over);
  await fold(context, new Set(over));
  const ended: GenerationName[] = [];
  for (const some of [over.filter((name) => !last.has(name)), over.filter((name) => last.has(name))]) {
    const marked = await mapConcurrently(some, concurrency, (name) => markDead(context, name));
    ended.push(...some.filter((_, i) => marked[i]));
  }
  return ended;
}

/** Once a generation is over, a tag says that what it adopted was adopted: else that would be read again. */
async function keepAdopted(context: ProtocolContext, over: readonly GenerationName[]): Promise<void> {
  const { store, database, signal } = context;
  const ending = new Set(over);
  const records = database.view.generations().filter(({ name }) => ending.has(name));
  for (const index of new Set(records.flatMap(({ record }) => record.adopted ?? []))) {
    const tag = adoptedTag(index);
    if ((await store.statManifest(tag, { signal })) !== undefined) continue;
    const written = await writeNothing(context, tag);
    if (typeof written === "string") continue;
    throw new NixcacheError(
      "protocol",
      `${store.name} refuses the tag ${tag}: blobs are missing, although it names none`,
    );
  }
}

async function markDead(context: ProtocolContext, name: GenerationName): Promise<boolean> {
  const { store, signal } = context;
  const segment = await readTag(store, segmentTag(name), { signal });
  if (segment === undefined) return false;
  const { mediaType, bytes } = segment.stored;
  const tag = deadTag(segment.tag, laterTime(context));
  if (isManifest(segment.stored)) {
    // The same bytes have the same digest, so that one deletion removes both tags.
    const written = await store.writeManifest(tag, mediaType, bytes, { signal });
    if (typeof written === "string") return true;
  }
  // What is no manifest, or names blobs that are gone, cannot be put again: a manifest of nothing hides it then.
  return typeof (await writeNothing(context, tag)) === "string";
}

function isManifest({ mediaType, bytes }: StoredManifest): boolean {
  if (mediaType !== MEDIA_TYPE_MANIFEST) return false;
  try {
    decodeManifest(bytes, "a segment");
    return true;
  } catch (error) {
    if (error instanceof NixcacheError && error.code === "corrupt") return false;
    throw error;
  }
}

/** Puts a manifest that names nothing but the empty config. */
async function writeNothing(
  { store, host, signal }: ProtocolContext,
  tag: string,
): Promise<Digest | BlobsMissing> {
  await writeEmptyConfig(store, { signal });
  const notes = { created: new Date(host.now()).toISOString(), nonce: randomId(host) };
  return store.writeManifest(tag, MEDIA_TYPE_MANIFEST, holdManifest([EMPTY_CONFIG], notes), { signal });
}

export interface Sweep {
  /** Generations and holds of which nothing is left. */
  readonly gone: readonly GenerationId[];
  /** How many generations have not been dead for long enough. */
  readonly waiting: number;
  /** Manifests deleted. */
  readonly deleted: readonly Digest[];
  /** What the store does not let us delete, and why; the next run tries again. */
  readonly refused: readonly {
    /** Or a digest, where there is no tag. */ readonly tag: string;
    readonly reason: string;
  }[];
}

/**
 * Deletes generations that have been dead for over a day, and holds that lost their generation. Goes on where
 * a run before this one stopped.
 * @throws `clock` where nobody can say for how long they have; what the store throws
 */
export async function sweep(context: ProtocolContext): Promise<Sweep> {
  const { store, signal } = context;
  const tags = (await store.listTags({ signal })).map((tag) => ({ tag, parsed: parseTag(tag) }));
  requireClock(context);
  const segments = new Map<GenerationId, string[]>();
  const holds = new Map<GenerationName, string[]>();
  for (const { tag, parsed } of tags) {
    if (parsed?.kind === "segment") add(segments, generationId(parsed.name), tag);
    if (parsed?.kind === "hold") add(holds, parsed.name, tag);
  }
  const sweeper = new Sweeper(context);
  const dead = new Set<GenerationId>();
  const waiting = new Set<GenerationId>();
  for (const { tag, parsed } of tags) {
    if (parsed?.kind !== "dead") continue;
    if (earlierTime(context) - parsed.since < DEAD_FOR_MS) {
      waiting.add(parsed.id);
      continue;
    }
    // The segment first: without its dead tag it would be alive again.
    const isGone = await sweeper.remove([...(segments.get(parsed.id) ?? []), tag]);
    if (isGone) dead.add(parsed.id);
  }
  const gone = new Set(dead);
  for (const [name, held] of holds) {
    const orphan =
      dead.has(generationId(name)) ||
      (earlierTime(context) - generationTime(name) >= HOLD_FOR_MS &&
        !(await hasSegment(context, name, held)));
    if (!orphan) continue;
    if (await sweeper.remove(held)) gone.add(generationId(name));
    else gone.delete(generationId(name));
  }
  await removeAdopted(context, sweeper, tags);
  for (const digest of (await store.listUntagged?.({ signal })) ?? []) {
    if (await isFormerRoot(context, digest)) await sweeper.remove([digest]);
  }
  const { deleted, refused } = sweeper;
  return { gone: [...gone], waiting: waiting.difference(gone).size, deleted, refused };
}

function add<K>(lists: Map<K, string[]>, key: K, tag: string): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [tag]);
  else list.push(tag);
}

/** What an index of nixcache-oci was adopted as matters while that index is there. */
async function removeAdopted(
  context: ProtocolContext,
  sweeper: Sweeper,
  tags: readonly { tag: string; parsed: Tag | undefined }[],
): Promise<void> {
  if (!tags.some(({ parsed }) => parsed?.kind === "adopted")) return;
  const present = await findV1(context, undefined, [V1_TAG]);
  for (const { tag, parsed } of tags)
    if (parsed?.kind === "adopted" && parsed.index !== present?.index?.digest) await sweeper.remove([tag]);
}

/** Whether a hold's generation is there: the one with its name, or one that it says it is of. By their exact tags. */
async function hasSegment(
  { store, signal }: ProtocolContext,
  name: GenerationName,
  holds: readonly string[],
): Promise<boolean> {
  // By GET, as a blob is lost for a HEAD that says 404 to everything.
  const isThere = async (of: GenerationName) =>
    (await readTag(store, segmentTag(of), { signal })) !== undefined;
  if (await isThere(name)) return true;
  // All holds of one name are of one generation.
  const of = await holdOwner(store, holds[0] ?? "", { signal });
  return of === "unreadable" || (of !== undefined && (await isThere(of)));
}

/** A root that another one has replaced, so long ago that no reader looks at it any more. */
async function isFormerRoot(context: ProtocolContext, digest: Digest): Promise<boolean> {
  const { store, signal } = context;
  try {
    const stored = await store.readManifest(digest, { signal });
    if (typeof stored !== "object" || stored.mediaType !== MEDIA_TYPE_MANIFEST) return false;
    const { artifactType, annotations = {} } = decodeManifest(stored.bytes, digest);
    const created = Date.parse(annotations["org.opencontainers.image.created"] ?? "");
    return artifactType === ROOT_TYPE && earlierTime(context) - created >= DEAD_FOR_MS;
  } catch (error) {
    // Other tools may keep manifests beside ours, of whatever kind.
    if (error instanceof NixcacheError && error.code === "corrupt") return false;
    throw error;
  }
}

/** A text says why it cannot be read. */
async function readManifestOrWhy(
  store: ProtocolContext["store"],
  tag: string,
  options: CallOptions,
): Promise<StoredManifest | string | undefined> {
  try {
    const stored = await store.readManifest(tag, options);
    return stored === "unchanged" ? undefined : stored;
  } catch (error) {
    if (error instanceof NixcacheError && (error.code === "corrupt" || error.code === "protocol"))
      return error.message;
    throw error;
  }
}

class Sweeper {
  readonly deleted: Digest[] = [];
  readonly refused: { tag: string; reason: string }[] = [];
  readonly #context: ProtocolContext;
  /** Why nothing can be deleted at all. */
  #closed: string | undefined;

  constructor(context: ProtocolContext) {
    this.#context = context;
  }

  /** Deletes what is under the tags, in this order, up to the first that must stay. Answers whether all is gone. */
  async remove(tags: readonly string[]): Promise<boolean> {
    for (const tag of tags) {
      const reason = this.#closed ?? (await this.#whyItStays(tag));
      if (reason === undefined) continue;
      this.refused.push({ tag, reason });
      return false;
    }
    return true;
  }

  /** Undefined once it is gone. */
  async #whyItStays(tag: string): Promise<string | undefined> {
    const { store, signal } = this.#context;
    // Of the bytes, not of a header: what is deleted by a wrong digest may be alive.
    const stored = await readManifestOrWhy(store, tag, { signal });
    if (typeof stored === "string") return stored;
    if (stored === undefined) return undefined;
    const { digest } = stored;
    const answer = await store.deleteManifest(digest, { signal });
    if (typeof answer === "object") {
      if (answer.everything) this.#closed = answer.refused;
      return answer.refused;
    }
    if (answer) this.deleted.push(digest);
    return undefined;
  }
}

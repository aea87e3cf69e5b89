/**
 * The reader: brings the local index up to date with the cache (STORAGE-PROTOCOL, "Reader").
 *
 * The truth is the tag list. The root saves reading every segment: its layers count as far up the stack as
 * everything that they cover is alive; what they do not cover is read from the segments themselves.
 */
import { IndexDamaged } from "../cache/database.ts";
import { signedReference } from "../cache/manifests.ts";
import { type GenerationName, ROOT_TAG } from "../cache/tags.ts";
import { bothConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import { decodeManifest, type ImageManifest } from "../oci/manifest.ts";
import type { StoredManifest } from "../oci/store.ts";
import type { ProtocolContext } from "./context.ts";
import { updateIndex } from "./update-index.ts";
import { findV1 } from "./v1-index.ts";
import { rebuildView } from "./view.ts";

/** The tags are listed again after this long even when the root stays the same. */
const LIST_EVERY_MS = 3_600_000;

/** A refresh that took longer worked on a view that gc may have outrun. */
const MAX_REFRESH_MS = 12 * 3_600_000;

export interface RefreshOptions {
  /** List the tags even when the root has not changed. */
  readonly list?: boolean;
  /** Leave these out as if they were dead, this once. */
  readonly without?: ReadonlySet<GenerationName>;
}

/**
 * Answers whether the view changed.
 * @throws when the cache cannot be read; the view then stays as it was (rule 1).
 */
export async function refresh(context: ProtocolContext, options: RefreshOptions = {}): Promise<boolean> {
  for (;;) {
    const started = context.host.now();
    const changed = await refreshOnce(context, options).catch((error) => {
      // Once: a disk that damages every file would keep us here.
      if (!(error instanceof IndexDamaged)) throw error;
      context.warn(`${error.message}; reading it anew`);
      return refreshOnce(context, options);
    });
    if (context.host.now() - started < MAX_REFRESH_MS) return changed;
  }
}

async function refreshOnce(context: ProtocolContext, options: RefreshOptions): Promise<boolean> {
  const { database, store, host, signal } = context;
  const before = database.view.state();
  const now = host.now();
  const listIsDue = before.listedAt === undefined || Math.abs(now - before.listedAt) >= LIST_EVERY_MS;
  // At once, as any root will do: it may cover segments that the list lacks, or not cover some that it has.
  const [listed, stored] = await bothConcurrently(
    context.concurrency,
    async () => (options.list || listIsDue ? store.listTags({ signal }) : undefined),
    () => unlessDamaged(context, () => store.readManifest(ROOT_TAG, { ifNot: before.rootDigest, signal })),
  );
  const mustList = listed === undefined && stored !== "unchanged";
  const seen = mustList ? await store.listTags({ signal }) : listed;
  const v1 = await findV1(context, before.v1, seen);
  if (stored === "unchanged" && seen === undefined && v1 === before.v1) {
    await updateIndex(context, async (change) =>
      change.setState({ ...database.view.state(), refreshedAt: now }),
    );
    return false;
  }
  const tags = seen ?? (await store.listTags({ signal }));
  const root = stored === "unchanged" ? await readAgain(context, before.rootDigest as Digest) : stored;
  const decode = (): ImageManifest | undefined =>
    root && decodeManifest(root.bytes, `the root of ${store.name}`);
  const stack = (await unlessDamaged(context, decode))?.layers ?? [];
  // Fetching inside the transaction: two processes that refresh one index do it one after the other.
  return updateIndex(context, async (change) => {
    const rebuilt = await rebuildView(context, change, {
      tags,
      stack: stack.map(signedReference),
      without: options.without ?? new Set(),
      v1,
    });
    const state = { ...database.view.state(), listedAt: now, refreshedAt: now };
    change.setState({ ...state, rootDigest: root?.digest, v1: rebuilt.v1 });
    return rebuilt.changed;
  });
}

async function readAgain(context: ProtocolContext, digest: Digest): Promise<StoredManifest | undefined> {
  const { store, signal } = context;
  const manifest = await unlessDamaged(context, () => store.readManifest(digest, { signal }));
  return manifest === "unchanged" ? undefined : manifest;
}

/** Nothing depends on the root, so one that is damaged, or hidden behind an odd answer, is a warning and reads as none. */
async function unlessDamaged<T>(
  context: ProtocolContext,
  read: () => Promise<T> | T,
): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof NixcacheError)) throw error;
    if (error.code === "corrupt")
      context.warn(`the root is damaged: ${error.message}; reading the segments instead`);
    else if (error.code === "protocol")
      context.warn(`the root cannot be read: ${error.message}; reading the segments instead`);
    else throw error;
    return undefined;
  }
}

/**
 * The fold: puts one layer on the root's stack, with the lines of live segments that the root does not cover
 * yet (STORAGE-PROTOCOL, "Fold"). A courtesy to readers: the root is only a cache of the segments.
 */
import type { IndexReader, LayerRow } from "../cache/index-reader.ts";
import { NoEntry } from "../cache/layer-merge.ts";
import { type ManifestNotes, rootManifest, type SignedReference } from "../cache/manifests.ts";
import { layersToKeep } from "../cache/stack.ts";
import { type GenerationName, generationId, parseTag, ROOT_TAG } from "../cache/tags.ts";
import { bothConcurrently, mapConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import { randomId } from "../host.ts";
import type { Digest } from "../oci/digest.ts";
import { MEDIA_TYPE_MANIFEST } from "../oci/manifest.ts";
import { discardBlob } from "../oci/spool.ts";
import type { BlobSource } from "../oci/store.ts";
import { cacheTime } from "./clock.ts";
import type { ProtocolContext } from "./context.ts";
import { writeEmptyConfig } from "./empty-config.ts";
import { makeLayer } from "./layer-blob.ts";
import { refresh } from "./refresh.ts";
import { rootLayerSignature } from "./signed.ts";
import { isStrict } from "./strictness.ts";

const ATTEMPTS = 5;

/** Publishers that fold at the same moment draw apart by up to this long, in milliseconds. */
const JITTER_MS = 1_000;

/**
 * Makes the root cover every live segment. Answers whether it does in the end.
 * @param without generations that gc is about to end
 * @throws when the store fails
 */
export async function fold(
  context: ProtocolContext,
  without: ReadonlySet<GenerationName> = new Set(),
): Promise<boolean> {
  let mayKeepLayers = true;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    if (attempt > 0) await context.host.sleep(context.host.random() * JITTER_MS, context.signal);
    const next = await refreshedRoot(context, without, mayKeepLayers);
    if (next === undefined) return true;
    try {
      const digest = await writeRoot(context, next);
      if (digest === "layers gone") mayKeepLayers = false;
      else if (digest !== "refused" && (await isComplete(context, digest, next.complete.union(without))))
        return true;
    } finally {
      discardBlob(next.top);
    }
  }
  return false;
}

/** Undefined when there is nothing to fold. */
async function refreshedRoot(
  context: ProtocolContext,
  without: ReadonlySet<GenerationName>,
  mayKeepLayers: boolean,
): Promise<NextRoot | undefined> {
  const { database } = context;
  const known = database.malformed.layers;
  for (;;) {
    await refresh(context, { list: true, without });
    try {
      return await database.snapshot((view) => nextRoot(view, context, mayKeepLayers));
    } catch (error) {
      if (!(error instanceof NoEntry) || known.has(error.layer)) throw error;
      // A root must not say of what it lacks that it covers it.
      await database.snapshot(async (view) => {
        for (const layer of view.layersWithoutEntries()) known.add(layer);
      });
    }
  }
}

interface NextRoot {
  readonly below: readonly LayerRow[];
  readonly top: BlobSource;
  /** Names of all generations that the new stack covers, and of those that no root can cover. */
  readonly complete: ReadonlySet<GenerationName>;
}

/** Undefined when there is nothing to fold. @param mayKeepLayers false makes the whole root anew. */
async function nextRoot(
  view: IndexReader,
  { spool, host, trust = {}, database: { malformed } }: ProtocolContext,
  mayKeepLayers: boolean,
): Promise<NextRoot | undefined> {
  const stack = view.layers().filter(({ position }) => position !== null);
  const open = view.uncovered();
  const uncovered = open.filter(({ digest }) => !malformed.layers.has(digest));
  if (uncovered.length === 0) return undefined;
  const namesIn = (layers: readonly LayerRow[]) =>
    new Set(layers.flatMap(({ id }) => view.generations(id).map(({ name }) => name)));
  // Those that are left out are read directly.
  const passedOver = malformed.generations.union(new Set(view.unsigned()));
  const complete = namesIn([...stack, ...open]).union(passedOver);
  // Whoever signs no layer leaves those that are signed: readers with keys take no other.
  const isSigning = trust.keys !== undefined && trust.signer !== undefined;
  const signed = isSigning ? 0 : stack.filter(({ signatures }) => signatures !== null).length;

  const nonce = randomId(host);

  const make = async (keep: number): Promise<NextRoot> => {
    const below = stack.slice(0, keep);
    const above = [...stack.slice(keep), ...uncovered].map(({ id }) => id);
    const covers = above.flatMap((id) => view.generations(id)).sort((a, b) => (a.name < b.name ? -1 : 1));
    const lines = view.linesAbove(
      above,
      below.map(({ id }) => id),
    );
    return { below, top: await makeLayer(spool, { kind: "root", covers, nonce }, lines), complete };
  };
  if (!mayKeepLayers) return make(0);
  const next = await make(stack.length);
  const sizes = stack.map(({ size }) => size);
  const keep = Math.max(signed, layersToKeep(sizes, next.top.size));
  if (keep === stack.length) return next;
  discardBlob(next.top);
  return make(keep);
}

/**
 * The digest of the new root. `layers gone` when the store lost one that an earlier root names; `refused` when
 * it has all of them now.
 */
async function writeRoot(
  context: ProtocolContext,
  next: NextRoot,
): Promise<Digest | "layers gone" | "refused"> {
  const { store, host, concurrency, signal, trust = {} } = context;
  const layersAreGone = async () => {
    const sizes = await mapConcurrently(next.below, concurrency, ({ digest }) =>
      store.statBlob(digest, { signal }),
    );
    return sizes.includes(undefined);
  };
  if (!(await isStrict(context)) && (await layersAreGone())) return "layers gone";
  await bothConcurrently(
    concurrency,
    () => store.writeBlob(next.top, { signal }),
    () => writeEmptyConfig(store, { signal }),
  );
  const notes: ManifestNotes = { created: new Date(cacheTime(context)).toISOString(), nonce: randomId(host) };
  const { digest: top, size } = next.top;
  const layers: SignedReference[] = [
    ...next.below.map((layer) => ({ ...layer, signatures: layer.signatures ?? undefined })),
    { digest: top, size, signatures: rootLayerSignature(trust, top) },
  ];
  const written = await store.writeManifest(ROOT_TAG, MEDIA_TYPE_MANIFEST, rootManifest(layers, notes), {
    signal,
  });
  if (typeof written === "string") return written;
  return (await layersAreGone()) ? "layers gone" : "refused";
}

/** Whether the root is still ours and covers every live segment that is listed now. */
async function isComplete(
  context: ProtocolContext,
  digest: string,
  covered: ReadonlySet<GenerationName>,
): Promise<boolean> {
  const { store, signal } = context;
  const tags = (await store.listTags({ signal })).map(parseTag);
  const over = new Set(tags.flatMap((tag) => (tag?.kind === "dead" ? [tag.id] : [])));
  const complete = tags.every(
    (tag) => tag?.kind !== "segment" || over.has(generationId(tag.name)) || covered.has(tag.name),
  );
  return complete && (await store.statManifest(ROOT_TAG, { signal })) === digest;
}

/** Folds, and turns a failure into a warning: the publish is committed whatever becomes of the root. */
export async function foldOrWarn(context: ProtocolContext): Promise<void> {
  try {
    if (await fold(context)) return;
    context.warn(
      "the root does not cover every generation yet (others publish too); readers read those directly",
    );
  } catch (error) {
    if (!(error instanceof NixcacheError)) throw error;
    context.warn(
      `the root could not be brought up to date: ${error.message}; readers read the generations directly`,
    );
  }
}

/**
 * A view of one generation alone, in a local index of its own: read once from its segment, never changed. Works for a
 * generation that has ended as long as it is not deleted.
 */
import { IndexDamaged } from "../cache/database.ts";
import type { IndexUpdate } from "../cache/index-update.ts";
import { type GenerationName, segmentTag } from "../cache/tags.ts";
import type { ProtocolContext } from "./context.ts";
import { generationGone, readSegment } from "./segment.ts";
import { statTag } from "./tagged.ts";
import { updateIndex } from "./update-index.ts";

/**
 * Reads the generation, or when that was done before asks whether it is still there.
 * @param context with the index that is for this generation alone
 * @throws `absent` once it is deleted; what was read stays
 */
export async function loadGeneration(context: ProtocolContext, name: GenerationName): Promise<void> {
  await loadOnce(context, name).catch((error) => {
    // Once: a disk that damages every file would keep us here.
    if (!(error instanceof IndexDamaged)) throw error;
    context.warn(`${error.message}; reading it anew`);
    return loadOnce(context, name);
  });
}

async function loadOnce(context: ProtocolContext, name: GenerationName): Promise<void> {
  const { database, store, host, signal } = context;
  const isLoaded = () => database.view.state().refreshedAt !== undefined;
  if (isLoaded() && (await statTag(store, segmentTag(name), { signal })) === undefined)
    throw generationGone(store, name);
  await updateIndex(context, async (change) => {
    // Asked again: another process may have been waited for, or a damaged file been replaced by an empty one.
    if (!isLoaded()) await readInto(change, context, name);
    change.setState({ refreshedAt: host.now() });
  });
}

async function readInto(change: IndexUpdate, context: ProtocolContext, name: GenerationName): Promise<void> {
  let layer: number | undefined;
  const header = await readSegment(context, name, (line, { digest, size }) => {
    layer ??= change.addLayer(digest, size);
    change.addEntry(layer, line);
  });
  if (header === undefined) throw generationGone(context.store, name);
  layer ??= change.addLayer(header.index.digest, header.index.size);
  change.setGenerations(layer, [{ name, record: header.record }]);
}

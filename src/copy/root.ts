/**
 * The source's root for a destination that has none. A root is only a cache of the segments, so one that does not fit
 * is passed over by readers; where it fits, nobody there has to read every segment to make a new one.
 */
import { signedReference } from "../cache/manifests.ts";
import { ROOT_TAG } from "../cache/tags.ts";
import { NixcacheError } from "../errors.ts";
import { decodeManifest } from "../oci/manifest.ts";
import type { Store } from "../oci/store.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { countsRootLayer } from "../protocol/signed.ts";
import type { BlobCopier } from "./blobs.ts";

export async function copyRoot(context: ProtocolContext, source: Store, copier: BlobCopier): Promise<void> {
  const { store, signal, warn, trust = {} } = context;
  try {
    if ((await store.statManifest(ROOT_TAG, { signal })) !== undefined) return;
    const root = await source.readManifest(ROOT_TAG, { signal });
    if (typeof root !== "object") return;
    const { config, layers } = decodeManifest(root.bytes, `the root of ${source.name}`);
    if (!layers.map(signedReference).every((layer) => countsRootLayer(trust, layer))) return;
    for (const { digest, size } of [config, ...layers]) await copier.copy({ digest, size });
    await store.writeManifest(ROOT_TAG, root.mediaType, root.bytes, { signal });
  } catch (error) {
    if (!(error instanceof NixcacheError) || signal?.aborted) throw error;
    warn(`the root could not be copied: ${error.message}; a new one is made`);
  }
}

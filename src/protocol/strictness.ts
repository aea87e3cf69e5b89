/**
 * R6: whether a registry refuses a manifest that names a missing blob. Asked once a cache, remembered in the
 * local index.
 */
import { randomId } from "../host.ts";
import { digestOf } from "../oci/digest.ts";
import {
  encodeManifest,
  IMAGE_CONFIG,
  IMAGE_CONFIG_BYTES,
  MEDIA_TYPE_LAYER,
  MEDIA_TYPE_MANIFEST,
} from "../oci/manifest.ts";
import type { ProtocolContext } from "./context.ts";
import { updateIndex } from "./update-index.ts";
import { writeIfAbsent } from "./write-if-absent.ts";

export async function isStrict(context: ProtocolContext): Promise<boolean> {
  const { store, database } = context;
  if (store.strictness === "strict") return true;
  const known = database.view.state().strict;
  if (known !== undefined) return known;
  const strict = await probe(context);
  await updateIndex(context, async (change) => change.setState({ ...database.view.state(), strict }));
  return strict;
}

async function probe({ store, host, signal }: ProtocolContext): Promise<boolean> {
  // Of the plainest kind: registries that refuse custom artifact types must take this one.
  const config = { digest: IMAGE_CONFIG.digest, size: IMAGE_CONFIG.size, content: IMAGE_CONFIG_BYTES };
  await writeIfAbsent(store, config, { signal });
  const nowhere = digestOf(`nixcache probe ${randomId(host)}`);
  const bytes = encodeManifest({
    schemaVersion: 2,
    mediaType: MEDIA_TYPE_MANIFEST,
    config: IMAGE_CONFIG,
    layers: [{ mediaType: MEDIA_TYPE_LAYER, digest: nowhere, size: 1 }],
  });
  // Under its own digest, so that no tag of ours ever names it.
  const written = await store.writeManifest(digestOf(bytes), MEDIA_TYPE_MANIFEST, bytes, { signal });
  if (typeof written !== "string") return true;
  await store.deleteManifest(written, { signal });
  return false;
}

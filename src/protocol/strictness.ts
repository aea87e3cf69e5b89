/**
 * R6: whether a registry refuses a manifest that names a missing blob. Asked once a cache, remembered in the
 * local index.
 */
import { segmentManifest } from "../cache/manifests.ts";
import { randomId } from "../host.ts";
import { digestOf } from "../oci/digest.ts";
import { MEDIA_TYPE_MANIFEST } from "../oci/manifest.ts";
import type { ProtocolContext } from "./context.ts";
import { writeEmptyConfig } from "./empty-config.ts";

export async function isStrict(context: ProtocolContext): Promise<boolean> {
  const { store, database, host } = context;
  if (store.strictness === "strict") return true;
  const known = database.view.state().strict;
  if (known !== undefined) return known;
  const strict = await probe(context);
  await database.update(
    async (change) => change.setState({ ...database.view.state(), strict }),
    () => host.sleep(50, context.signal),
  );
  return strict;
}

async function probe({ store, host, signal }: ProtocolContext): Promise<boolean> {
  await writeEmptyConfig(store, { signal });
  const nowhere = { digest: digestOf(`nixcache probe ${randomId(host)}`), size: 1 };
  const notes = { created: new Date(host.now()).toISOString(), nonce: randomId(host) };
  const bytes = segmentManifest(nowhere, [], notes);
  // Under its own digest, so that no tag of ours ever names it.
  const written = await store.writeManifest(digestOf(bytes), MEDIA_TYPE_MANIFEST, bytes, { signal });
  if (typeof written !== "string") return true;
  await store.deleteManifest(written, { signal });
  return false;
}

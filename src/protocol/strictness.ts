/**
 * R6: whether a registry refuses a manifest that names a missing blob. Asked once a cache, remembered in the local index.
 *
 * Nothing depends on the answer: a registry that cannot be judged counts as one that takes such a manifest, so every
 * blob is held and asked for before a commit. That is asked anew in the next run.
 */
import { NixcacheError } from "../errors.ts";
import { randomId } from "../host.ts";
import { type Digest, digestOf } from "../oci/digest.ts";
import {
  encodeManifest,
  IMAGE_CONFIG,
  IMAGE_CONFIG_BYTES,
  MEDIA_TYPE_LAYER,
  MEDIA_TYPE_MANIFEST,
} from "../oci/manifest.ts";
import { throwIfAborted } from "../oci/network.ts";
import type { BlobsMissing, Store } from "../oci/store.ts";
import type { ProtocolContext } from "./context.ts";
import { updateIndex } from "./update-index.ts";
import { writeIfAbsent } from "./write-if-absent.ts";

/** Gitea fails (500) at a manifest that names a missing blob, each time. */
const PROBE_ATTEMPTS = 3;

/** What was found of registries that could not be judged, or are being asked. */
const asked = new WeakMap<Store, Promise<boolean | undefined>>();

export async function isStrict(context: ProtocolContext): Promise<boolean> {
  const { store, database } = context;
  if (store.strictness === "strict") return true;
  const known = database.view.state().strict;
  if (known !== undefined) return known;
  let probed = asked.get(store);
  if (probed === undefined) {
    probed = probe(context);
    asked.set(store, probed);
    // An interrupt is no answer.
    probed.catch(() => asked.delete(store));
  }
  const strict = await probed;
  if (strict === undefined) return false;
  await updateIndex(context, async (change) => change.setState({ ...database.view.state(), strict }));
  return strict;
}

/** Undefined when the registry cannot be judged. @throws only when interrupted */
async function probe(context: ProtocolContext): Promise<boolean | undefined> {
  const { store, host, signal } = context;
  try {
    // Of the plainest kind: registries that refuse custom artifact types must take this one.
    const config = { digest: IMAGE_CONFIG.digest, size: IMAGE_CONFIG.size, content: IMAGE_CONFIG_BYTES };
    await writeIfAbsent(store, config, { signal });
    const nowhere = { digest: digestOf(`nixcache probe ${randomId(host)}`), size: 1 };
    const taken = await put(context, nowhere);
    if (typeof taken === "string") {
      await remove(context, taken);
      return false;
    }
    if (taken.inferred === undefined) return true;
    // It gave another reason: the same manifest must be good once it lacks nothing.
    const control = await put(context, IMAGE_CONFIG);
    if (typeof control !== "string") return undefined;
    await remove(context, control);
    return true;
  } catch (error) {
    throwIfAborted(signal);
    if (error instanceof NixcacheError && error.code !== "interrupted") return undefined;
    throw error;
  }
}

/** Under its own digest, so that no tag of ours ever names it. */
function put(
  { store, signal }: ProtocolContext,
  { digest, size }: { readonly digest: Digest; readonly size: number },
): Promise<Digest | BlobsMissing> {
  const bytes = encodeManifest({
    schemaVersion: 2,
    mediaType: MEDIA_TYPE_MANIFEST,
    config: IMAGE_CONFIG,
    layers: [{ mediaType: MEDIA_TYPE_LAYER, digest, size }],
  });
  const options = { faultAttempts: PROBE_ATTEMPTS, signal };
  return store.writeManifest(digestOf(bytes), MEDIA_TYPE_MANIFEST, bytes, options);
}

/** A courtesy: a manifest without a tag harms nobody. */
async function remove({ store, signal }: ProtocolContext, digest: Digest): Promise<void> {
  try {
    await store.deleteManifest(digest, { faultAttempts: PROBE_ATTEMPTS, signal });
  } catch (error) {
    throwIfAborted(signal);
    if (!(error instanceof NixcacheError) || error.code === "interrupted") throw error;
  }
}

/**
 * Asking for a tag of a generation by its exact name. It may be on the registry in either of its two forms (`tags.ts`),
 * so it is absent only when both are.
 */
import { tagForms } from "../cache/tags.ts";
import type { Digest } from "../oci/digest.ts";
import type { CallOptions, Store, StoredManifest } from "../oci/store.ts";

export interface Tagged {
  /** As it is on the registry. */
  readonly tag: string;
  readonly stored: StoredManifest;
}

/** @param tag in the form that was listed, where it was: that one is asked for first */
export async function readTag(
  store: Pick<Store, "readManifest">,
  tag: string,
  options: CallOptions,
): Promise<Tagged | undefined> {
  for (const form of tagForms(tag)) {
    const stored = await store.readManifest(form, options);
    if (typeof stored === "object") return { tag: form, stored };
  }
  return undefined;
}

/** As `readTag`; answers the digest. */
export async function statTag(
  store: Pick<Store, "statManifest">,
  tag: string,
  options: CallOptions,
): Promise<Digest | undefined> {
  for (const form of tagForms(tag)) {
    const digest = await store.statManifest(form, options);
    if (digest !== undefined) return digest;
  }
  return undefined;
}

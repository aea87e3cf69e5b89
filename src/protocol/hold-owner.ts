/** The generation that a hold says it is of, where that is another than its own name says. */
import { holdsFor } from "../cache/manifests.ts";
import type { GenerationName } from "../cache/tags.ts";
import { NixcacheError } from "../errors.ts";
import { decodeManifest } from "../oci/manifest.ts";
import type { CallOptions, Store } from "../oci/store.ts";

/** `"unreadable"` for what is no manifest of ours. */
export async function holdOwner(
  store: Store,
  tag: string,
  options: CallOptions,
): Promise<GenerationName | "unreadable" | undefined> {
  try {
    const stored = await store.readManifest(tag, options);
    return typeof stored === "object" ? holdsFor(decodeManifest(stored.bytes, tag)) : undefined;
  } catch (error) {
    if (error instanceof NixcacheError && error.code === "corrupt") return "unreadable";
    throw error;
  }
}

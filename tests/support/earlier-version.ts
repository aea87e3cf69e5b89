/** A cache as a version before lower-case tags has written it: `T` and `Z` in its tags and in what its root covers. */
import { ROOT_TAG, tagForms } from "../../src/cache/tags.ts";
import { type Digest, digestOf } from "../../src/oci/digest.ts";
import { decodeManifest, encodeManifest } from "../../src/oci/manifest.ts";
import type { MemoryStore } from "./memory-store.ts";

export const withCapitals = (text: string): string => text.replaceAll(/(\d{8})t(\d{6})z-/g, "$1T$2Z-");

/** Rewrites what is in the store so far. */
export function asEarlierVersion(store: MemoryStore): void {
  for (const [tag, digest] of [...store.tags]) {
    if (tagForms(tag).length === 1) continue;
    store.tags.delete(tag);
    store.tags.set(withCapitals(tag), digest);
  }
  const root = store.manifests.get(store.tags.get(ROOT_TAG) as Digest);
  if (root === undefined) return;
  const manifest = decodeManifest(root.bytes, ROOT_TAG);
  const layers = manifest.layers.map((layer) => {
    const text = Buffer.from(Bun.zstdDecompressSync(store.blobs.get(layer.digest) as Uint8Array)).toString();
    const content = Bun.zstdCompressSync(Buffer.from(withCapitals(text)));
    const digest = digestOf(content);
    store.blobs.set(digest, content);
    return { ...layer, digest, size: content.length };
  });
  const bytes = encodeManifest({ ...manifest, layers });
  const digest = digestOf(bytes);
  store.manifests.set(digest, { ...root, digest, bytes });
  store.tags.set(ROOT_TAG, digest);
}

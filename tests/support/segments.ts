/** Looking at, and damaging, the segments of a store in memory. */
import type { Digest } from "../../src/oci/digest.ts";
import { decodeManifest } from "../../src/oci/manifest.ts";
import type { MemoryStore } from "./memory-store.ts";

/** The digest of a generation's index layer. */
export function indexLayer(store: MemoryStore, generation: string): Digest {
  const manifest = store.manifests.get(store.tags.get(`seg-${generation}`) as Digest);
  return decodeManifest(manifest?.bytes as Uint8Array, generation).layers[0]?.digest as Digest;
}

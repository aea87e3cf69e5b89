/** Blobs and manifests for the tests of stores. */
import type { Host } from "../../../src/host.ts";
import { type Digest, digestOf } from "../../../src/oci/digest.ts";
import {
  describe,
  EMPTY_CONFIG,
  EMPTY_CONFIG_BYTES,
  encodeManifest,
  MEDIA_TYPE_LAYER,
  MEDIA_TYPE_MANIFEST,
} from "../../../src/oci/manifest.ts";
import type { Store, StoredManifest } from "../../../src/oci/store.ts";

export const realHost: Host = {
  now: () => Date.now(),
  random: () => Math.random(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      const id = setTimeout(resolve, ms);
      signal?.addEventListener("abort", () => {
        clearTimeout(id);
        reject(signal.reason);
      });
    }),
};

/** Content does not matter, only that it is no other. */
export function randomBytes(size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  for (let i = 0; i < size; i += 65_536) crypto.getRandomValues(bytes.subarray(i, i + 65_536));
  return bytes;
}

/** @throws when the blob is absent. */
export async function bytesOf(stream: ReadableStream<Uint8Array> | undefined): Promise<Uint8Array> {
  if (stream === undefined) throw new Error("the blob is absent");
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export async function writeBlob(store: Store, bytes: Uint8Array): Promise<Digest> {
  const digest = digestOf(bytes);
  await store.writeBlob({ digest, size: bytes.length, content: bytes });
  return digest;
}

/** A manifest as a publish writes it, with one layer: `text` as a zstd frame. */
export function manifestOf(text: string): { bytes: Uint8Array; layer: Uint8Array } {
  const layer = Bun.zstdCompressSync(text);
  const bytes = encodeManifest({
    schemaVersion: 2,
    mediaType: MEDIA_TYPE_MANIFEST,
    artifactType: "application/vnd.nixcache.segment.v1",
    config: EMPTY_CONFIG,
    layers: [describe(MEDIA_TYPE_LAYER, layer)],
    annotations: { "org.opencontainers.image.created": "2026-01-01T00:00:00Z", "org.nixcache.nonce": text },
  });
  return { bytes, layer };
}

/** Writes the blobs of `manifestOf(text)`, then the manifest under a tag. @throws when that is refused. */
export async function writeTag(store: Store, tag: string, text: string): Promise<Digest> {
  const { bytes, layer } = manifestOf(text);
  // As publishers do: docker-registry forgets a blob for the moment in which somebody uploads it again.
  if ((await store.statBlob(EMPTY_CONFIG.digest)) === undefined) await writeBlob(store, EMPTY_CONFIG_BYTES);
  await writeBlob(store, layer);
  const result = await store.writeManifest(tag, MEDIA_TYPE_MANIFEST, bytes);
  if (typeof result !== "string") throw new Error(`refused: ${JSON.stringify(result)}`);
  return result;
}

/** @throws when the manifest is absent. */
export async function readAll(store: Store, reference: string): Promise<StoredManifest> {
  const manifest = await store.readManifest(reference);
  if (typeof manifest !== "object") throw new Error(`${reference}: got ${manifest}`);
  return manifest;
}

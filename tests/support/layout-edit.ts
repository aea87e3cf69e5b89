/** Damages the index layers of a cache in a folder, so that one thing is wrong and all else is consistent. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { digestOf } from "../../src/oci/digest.ts";
import { layoutBlob } from "./cache-files.ts";

interface Descriptor {
  digest: string;
  size: number;
  annotations?: Record<string, string>;
}

/** What becomes of an index layer: other bytes, or another size than it has. */
export type Damage =
  | { readonly kind: "stored"; readonly bytes: (bytes: Uint8Array) => Uint8Array }
  | { readonly kind: "rewritten"; readonly bytes: (bytes: Uint8Array) => Uint8Array }
  | { readonly kind: "size"; readonly by: number }
  | { readonly kind: "gone" };

const TAG = "org.opencontainers.image.ref.name";

/**
 * Damages the first layer of the manifest under the first tag that begins with `prefix`.
 *
 * `stored`: the blob's file has other bytes than its name says. `rewritten`: another blob is named, digest and
 * size right. `size`: the manifest states another size. `gone`: the file is removed.
 */
export async function damageLayer(layout: string, prefix: string, damage: Damage): Promise<void> {
  const indexFile = join(layout, "index.json");
  const index = await Bun.file(indexFile).json();
  const entry: Descriptor = index.manifests.find((item: Descriptor) =>
    item.annotations?.[TAG]?.startsWith(prefix),
  );
  const manifest = await Bun.file(layoutBlob(layout, entry.digest)).json();
  const layer: Descriptor = manifest.layers[0];
  const file = layoutBlob(layout, layer.digest);
  if (damage.kind === "gone") return rm(file);
  if (damage.kind === "stored") {
    await Bun.write(file, damage.bytes(await Bun.file(file).bytes()));
    return;
  }
  if (damage.kind === "size") layer.size += damage.by;
  else Object.assign(layer, await writeBlob(layout, damage.bytes(await Bun.file(file).bytes())));
  Object.assign(entry, await writeBlob(layout, Buffer.from(JSON.stringify(manifest))));
  await Bun.write(indexFile, JSON.stringify(index));
}

/** Takes a tag away, as when nobody had written it. */
export async function removeTag(layout: string, tag: string): Promise<void> {
  const file = join(layout, "index.json");
  const index = await Bun.file(file).json();
  index.manifests = index.manifests.filter((item: Descriptor) => item.annotations?.[TAG] !== tag);
  await Bun.write(file, JSON.stringify(index));
}

async function writeBlob(layout: string, bytes: Uint8Array): Promise<{ digest: string; size: number }> {
  const digest = digestOf(bytes);
  await Bun.write(layoutBlob(layout, digest), bytes);
  return { digest, size: bytes.length };
}

/**
 * What a cache really holds, read by the product's own reader with a fresh local index: every entry must be
 * complete, that is its NAR comes back with the hashes that its narinfo states, and its references are there too.
 */
import { entryOf } from "../../src/cache/entry.ts";
import { parseHash } from "../../src/nar/hash.ts";
import type { Digest } from "../../src/oci/digest.ts";
import { decodeManifest } from "../../src/oci/manifest.ts";
import { openStore } from "../../src/oci/open.ts";
import { parseReference } from "../../src/oci/reference.ts";
import type { Store } from "../../src/oci/store.ts";
import { refresh } from "../../src/protocol/refresh.ts";
import { readNar } from "../../src/serve/nar.ts";
import { party, TestHost } from "./protocol.ts";

/** The store of a cache reference, as this test sees it: no faults, no credentials. */
export function openCacheStore(reference: string): Store {
  const host = { now: () => Date.now(), random: Math.random, sleep: (ms: number) => Bun.sleep(ms) };
  return openStore(parseReference(reference), { host });
}

/** Store paths of all entries, sorted. @throws when one is not complete, or the cache cannot be read */
export async function auditCache(reference: string | Store): Promise<string[]> {
  const store = typeof reference === "string" ? openCacheStore(reference) : reference;
  using reader = party(store, new TestHost(Date.now()));
  await refresh(reader, { list: true });
  const { view } = reader.database;
  const entries = view
    .hashesFrom("", Number.POSITIVE_INFINITY)
    .map((hash) => entryOf(view.line(hash) as NonNullable<ReturnType<typeof view.line>>));
  const paths = new Set(entries.map(({ info }) => info.storePath));
  for (const { info, parts } of entries) {
    for (const reference of info.references) {
      if (!paths.has(`/nix/store/${reference}`))
        throw new Error(`${info.storePath}: ${reference} is not in the cache`);
    }
    const file = await readNar({ parts, fileHash: info.fileHash }, store);
    const nar = Bun.zstdDecompressSync(file);
    const found = new Bun.CryptoHasher("sha256").update(nar).digest("hex");
    if (found !== hex(info.narHash)) throw new Error(`${info.storePath}: its NAR has the hash ${found}`);
  }
  return [...paths].sort();
}

/** Every blob that a segment or a hold names, whether it is covered by the root or not. */
export async function namedBlobs(store: Store): Promise<Set<Digest>> {
  const named = new Set<Digest>();
  for (const tag of await store.listTags()) {
    if (!/^(seg|hold)-/.test(tag)) continue;
    const manifest = await store.readManifest(tag);
    if (typeof manifest !== "object") continue;
    for (const { digest } of decodeManifest(manifest.bytes, tag).layers) named.add(digest);
  }
  return named;
}

/** Digests of all manifests under tags, and of all that they name. */
export async function namedDigests(store: Store): Promise<Set<Digest>> {
  const named = new Set<Digest>();
  for (const tag of await store.listTags()) {
    const stored = await store.readManifest(tag);
    if (typeof stored !== "object") continue;
    const { config, layers } = decodeManifest(stored.bytes, tag);
    for (const { digest } of [stored, config, ...layers]) named.add(digest);
  }
  return named;
}

function hex(hash: string): string {
  return Buffer.from(parseHash(hash, "hash").bytes).toString("hex");
}

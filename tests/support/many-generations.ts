/**
 * A cache after years of publishing, written straight into a store: generations that each hold a closure of some
 * thousand paths, of which each changes a few, and a root as folds leave it. The NARs are as small as can be; index
 * layers, manifests and the root are what publishes write.
 */
import { type EntryLine, encodeEntry, formatLine } from "../../src/cache/entry.ts";
import { formatLayer, type Generation, type LayerHeader } from "../../src/cache/index-layer.ts";
import { type BlobReference, blobsOf, rootManifest, segmentManifest } from "../../src/cache/manifests.ts";
import { generationName, ROOT_TAG, segmentTag } from "../../src/cache/tags.ts";
import { mapConcurrently } from "../../src/concurrency.ts";
import { encodeBase32 } from "../../src/nar/base32.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { EMPTY_CONFIG, EMPTY_CONFIG_BYTES, MEDIA_TYPE_MANIFEST } from "../../src/oci/manifest.ts";
import type { BlobSource, Store } from "../../src/oci/store.ts";
import { compressFrame } from "../../src/zstd.ts";
import { storeHash } from "./protocol.ts";
import { noise } from "./publish.ts";

export interface ManyOptions {
  readonly generations: number;
  /** Folders in a closure, each with `leaves` paths below it; the root path refers to the folders. */
  readonly folders: number;
  readonly leaves: number;
  /** Paths that are new in each generation, all of one folder. */
  readonly changes: number;
  /** How many sources take turns. */
  readonly sources: number;
  /** When each was published, oldest first, in milliseconds since 1970. */
  time(generation: number): number;
}

/** Bytes of a NAR, compressed or not. */
const NAR_BYTES = 40;
const AT_ONCE = 8;
/** Layers are made by the hundred: speed counts more than size. */
const LEVEL = 1;

/** Distinct paths, all generations together. */
export function distinctPaths({ generations, folders, leaves, changes }: ManyOptions): number {
  return folders * (leaves + 1) + 1 + (generations - 1) * (changes + 2);
}

export async function writeManyGenerations(store: Store, options: ManyOptions): Promise<void> {
  await store.writeBlob({ ...EMPTY_CONFIG, content: EMPTY_CONFIG_BYTES });
  const covers: Generation[] = [];
  const lines = new Map<string, string>();
  const waiting: (() => Promise<void>)[] = [];
  const flush = () => mapConcurrently(waiting.splice(0), AT_ONCE, (write) => write());
  for (const { generation, header, closure, pack } of closures(options)) {
    for (const [hash, { text }] of closure) lines.set(hash, text);
    const texts = [...closure.values()].map(({ text }) => text);
    const blobs = new Map(
      [...closure.values()].flatMap(({ blobs }) => blobs).map((blob) => [blob.digest, blob]),
    );
    covers.push(generation);
    // Before any manifest of the batch: later generations name it, too.
    await store.writeBlob(pack);
    waiting.push(async () => {
      const layer = await layerOf(header, texts);
      await store.writeBlob(layer);
      const notes = { created: generation.record.time, nonce: generation.name.slice(-16) };
      const manifest = segmentManifest(layer, [...blobs.values()], notes);
      const written = await store.writeManifest(segmentTag(generation.name), MEDIA_TYPE_MANIFEST, manifest);
      if (typeof written !== "string") throw new Error(`${generation.name}: blobs are missing`);
    });
    if (waiting.length === AT_ONCE) await flush();
  }
  await flush();
  const root = await layerOf({ kind: "root", covers, nonce: "0" }, [...lines.values()]);
  await store.writeBlob(root);
  const notes = { created: new Date(options.time(options.generations - 1)).toISOString(), nonce: "0" };
  await store.writeManifest(ROOT_TAG, MEDIA_TYPE_MANIFEST, rootManifest([root], notes));
}

interface Written {
  readonly text: string;
  readonly blobs: readonly BlobReference[];
}

/** Each generation's closure by store hash, and the one pack that is new with it. */
function* closures(options: ManyOptions) {
  const { folders, leaves, changes, generations, sources } = options;
  const versions = new Map<string, number>();
  const all = Array.from({ length: folders }, (_, folder) => [
    ...Array.from({ length: leaves }, (_, leaf) => `leaf-${folder}-${leaf}`),
    `folder-${folder}`,
  ]);
  const nameOf = (path: string) => `${path}-${versions.get(path) ?? 0}`;
  const current = new Map<string, [string, Written]>();
  for (let at = 0; at < generations; at++) {
    const changed =
      at === 0 ? [...all.flat(), "root"] : [...(all[at % folders] as string[]).slice(-changes - 1), "root"];
    for (const path of changed) if (at > 0) versions.set(path, at);
    const content = noise(`pack ${at}`, changed.length * NAR_BYTES);
    const pack: BlobSource = { digest: digestOf(content), size: content.length, content };
    for (const [place, path] of changed.entries()) {
      const folder = /^folder-(\d+)$/.exec(path)?.[1];
      const below =
        path === "root"
          ? all.map((paths) => paths.at(-1) as string)
          : folder === undefined
            ? []
            : (all[Number(folder)] as string[]).slice(0, -1);
      const line = lineOf(nameOf(path), below.map(nameOf), pack, place * NAR_BYTES);
      current.set(path, [line.storeHash, { text: formatLine(line), blobs: blobsOf([line]) }]);
    }
    const closure = new Map([...current.values()].sort(([a], [b]) => (a < b ? -1 : 1)));
    const now = options.time(at);
    const record = {
      ...{ time: new Date(now).toISOString(), tool: "test", source: `repo#branch-${at % sources}`, keys: [] },
      ...{ branch: `branch-${at % sources}`, system: "x86_64-linux", selection: "hosts" },
      roots: { host: `/nix/store/${storeHash(nameOf("root"))}-${nameOf("root")}` },
      content: pack.digest,
      entries: closure.size,
    };
    const name = generationName(now, at.toString(16).padStart(16, "0"));
    yield {
      generation: { name, record },
      header: { kind: "segment", record } satisfies LayerHeader,
      closure,
      pack,
    };
  }
}

function lineOf(name: string, references: readonly string[], pack: BlobSource, offset: number): EntryLine {
  const hash = encodeBase32(new Bun.CryptoHasher("sha256").update(name).digest());
  return encodeEntry({
    info: {
      storePath: `/nix/store/${storeHash(name)}-${name}`,
      url: `nar/${hash}.nar.zst`,
      compression: "zstd",
      ...{ fileHash: `sha256:${hash}`, fileSize: NAR_BYTES, narHash: `sha256:${hash}`, narSize: NAR_BYTES },
      references: references.map((reference) => `${storeHash(reference)}-${reference}`).sort(),
      sigs: [`test-1:${Buffer.alloc(64, name).toString("base64")}`],
    },
    parts: [{ blob: pack.digest, size: pack.size, offset, length: NAR_BYTES }],
    added: 1_700_000_000,
  });
}

async function layerOf(header: LayerHeader, texts: readonly string[]): Promise<BlobSource> {
  const text = [...formatLayer(header, []), ...texts, ""].join("\n");
  const content = await compressFrame(Buffer.from(text), LEVEL);
  return { digest: digestOf(content), size: content.length, content };
}

/**
 * Caches of any size, written straight into a store: paths with names, references, signatures and NARs as large as
 * in a real cache. The index is what publishes and folds write; NARs there are none, but for one small blob that
 * stands for all of them in the manifests.
 */
import { type EntryLine, encodeEntry, formatLine } from "../src/cache/entry.ts";
import { formatLayer, type LayerHeader } from "../src/cache/index-layer.ts";
import { rootManifest, segmentManifest } from "../src/cache/manifests.ts";
import type { PublishRecord } from "../src/cache/record.ts";
import { type GenerationName, generationName, ROOT_TAG, segmentTag } from "../src/cache/tags.ts";
import { encodeBase32 } from "../src/nar/base32.ts";
import { digestOf } from "../src/oci/digest.ts";
import { EMPTY_CONFIG, EMPTY_CONFIG_BYTES, MEDIA_TYPE_MANIFEST } from "../src/oci/manifest.ts";
import type { BlobSource, Store } from "../src/oci/store.ts";
import { compressFrame } from "../src/zstd.ts";

export interface CacheOptions {
  readonly entries: number;
  /** Of the closure that one publish commits. Default: 3,000. */
  readonly closure?: number;
  /** zstd level of the index layers. Default: 9, as of a publish. */
  readonly level?: number;
  /** When the newest was published, in milliseconds since 1970. Default: now. */
  readonly now?: number;
}

export interface WrittenCache {
  readonly generations: readonly GenerationName[];
  /** Bytes of the root's index layer, compressed and not. */
  readonly indexBytes: number;
  readonly indexTextBytes: number;
}

const CLOSURE = 3_000;
const LEVEL = 9;
const FRAME_BYTES = 4 * 1024 * 1024;
const MINUTE_MS = 60_000;

/** Writes generations a minute apart, none with a path of another, and a root of one layer that covers them. */
export async function writeCache(store: Store, options: CacheOptions): Promise<WrittenCache> {
  const { entries, closure = CLOSURE, level = LEVEL, now = Date.now() } = options;
  const lines = Array.from({ length: entries }, (_, index) => formatLine(benchEntry(index)));
  const blob = blobOf(Buffer.from("the NARs of a bench"));
  await store.writeBlob({ ...EMPTY_CONFIG, content: EMPTY_CONFIG_BYTES });
  await store.writeBlob(blob);
  const covers: { name: GenerationName; record: PublishRecord }[] = [];
  for (let from = 0; from < entries; from += closure) {
    const part = lines.slice(from, from + closure).sort();
    const place = Math.floor(from / closure);
    const time = now - (Math.ceil(entries / closure) - place) * MINUTE_MS;
    const name = generationName(time, place.toString(16).padStart(16, "0"));
    const record = recordOf(place, part, time);
    const layer = await makeLayer({ kind: "segment", record }, part, 1);
    await store.writeBlob(layer.blob);
    const notes = { created: record.time, nonce: name.slice(-16) };
    await store.writeManifest(
      segmentTag(name),
      MEDIA_TYPE_MANIFEST,
      segmentManifest(layer.blob, [blob], notes),
    );
    covers.push({ name, record });
  }
  const root = await makeLayer({ kind: "root", covers, nonce: "0" }, lines.sort(), level);
  await store.writeBlob(root.blob);
  const notes = { created: new Date(now).toISOString(), nonce: "0" };
  await store.writeManifest(ROOT_TAG, MEDIA_TYPE_MANIFEST, rootManifest([root.blob], notes));
  return {
    generations: covers.map(({ name }) => name),
    indexBytes: root.blob.size,
    indexTextBytes: root.textBytes,
  };
}

function recordOf(place: number, lines: readonly string[], time: number): PublishRecord {
  return {
    ...{
      time: new Date(time).toISOString(),
      tool: "bench",
      source: `https://github.com/bench/bench#${place}`,
    },
    ...{ branch: "main", revision: digestOf(String(place)).slice(7, 47), system: "x86_64-linux" },
    ...{
      roots: { host: benchEntry(place).narinfo.slice(11, 60) },
      keys: [],
      content: digestOf(String(place)),
    },
    entries: lines.length,
  };
}

async function makeLayer(
  header: LayerHeader,
  lines: readonly string[],
  level: number,
): Promise<{ blob: BlobSource; textBytes: number }> {
  const frames: Promise<Uint8Array>[] = [];
  let [text, textBytes] = ["", 0];
  const flush = () => {
    textBytes += text.length;
    frames.push(compressFrame(Buffer.from(text), level));
    text = "";
  };
  for (const line of [...formatLayer(header, []), ...lines]) {
    text += `${line}\n`;
    if (text.length < FRAME_BYTES) continue;
    flush();
    await frames.at(-2);
  }
  flush();
  return { blob: blobOf(Buffer.concat(await Promise.all(frames))), textBytes };
}

function blobOf(content: Uint8Array): BlobSource {
  return { digest: digestOf(content), size: content.length, content };
}

const NAMES = [
  "glibc",
  "bash",
  "python3.11-requests",
  "perl5.36.0-URI",
  "linux-headers",
  "unit-nginx.service",
];
const NAMES_MORE = ["gcc-wrapper", "etc-profile", "rust_serde_json", "texlive-l3kernel", "nixos-system-host"];
const ALL_NAMES = [...NAMES, ...NAMES_MORE];
const REFERENCES = 8;
/** NARs that share a pack. */
const PACKED = 60;

/** The path with this number, always the same. */
export function benchEntry(index: number): EntryLine {
  const bytes = bytesOf(`path ${index}`);
  const file = bytesOf(`file ${index}`);
  const signature = bytesOf(`signature ${index}`);
  const size = 200 + (bytes.readUInt32LE(32) % 20_000);
  const fileHash = `sha256:${encodeBase32(file.subarray(0, 32))}`;
  const references = Array.from({ length: bytes.readUInt8(40) % REFERENCES }, (_, place) =>
    baseNameOf(Math.max(0, index - 1 - (bytes.readUInt16LE(42 + place * 2) % 2_000))),
  );
  const blob = digestOf(`pack ${Math.floor(index / PACKED)}`);
  const place = (index % PACKED) * 24_000;
  return encodeEntry({
    info: {
      storePath: `/nix/store/${baseNameOf(index)}`,
      url: `nar/${fileHash.slice(7)}.nar.zst`,
      compression: "zstd",
      ...{
        fileHash,
        fileSize: size,
        narHash: `sha256:${encodeBase32(file.subarray(32))}`,
        narSize: size * 3,
      },
      references: [...new Set(references)].sort(),
      deriver: `${encodeBase32(signature.subarray(0, 20))}-${nameOf(index)}.drv`,
      sigs: [`bench-1:${signature.toString("base64")}`],
    },
    parts: [{ blob, size: PACKED * 24_000, offset: place, length: size }],
    listing: { blob, size: PACKED * 24_000, offset: place + size, length: 150 + (index % 90) },
    added: 1_760_000_000 + index,
  });
}

export function benchStoreHash(index: number): string {
  return encodeBase32(bytesOf(`path ${index}`).subarray(0, 20));
}

function baseNameOf(index: number): string {
  return `${benchStoreHash(index)}-${nameOf(index)}`;
}

function nameOf(index: number): string {
  return `${ALL_NAMES[index % ALL_NAMES.length]}-${1 + (index % 7)}.${index % 31}.${index % 13}`;
}

/** 64 bytes that look like chance. */
function bytesOf(text: string): Buffer {
  return new Bun.CryptoHasher("sha512").update(text).digest() as Buffer;
}

/**
 * An index of nixcache-oci with very many entries, in a file, and a store that has it and claims to have its NARs: so
 * that what a process needs for it can be measured. A process of its own; prints what it found.
 *
 *     bun tests/support/v1-large.ts read|adopt FILE DIGEST SIZE ENTRIES
 */
import { open } from "node:fs/promises";
import { encodeBase32 } from "../../src/nar/base32.ts";
import { type Digest, digestOf } from "../../src/oci/digest.ts";
import { MEDIA_TYPE_MANIFEST } from "../../src/oci/manifest.ts";
import { adoptV1 } from "../../src/protocol/adopt.ts";
import { refresh } from "../../src/protocol/refresh.ts";
import { peakMemory } from "../fuzz/bombs.ts";
import { MemoryStore } from "./memory-store.ts";
import { party, storeHash } from "./protocol.ts";
import { V1_PUBLIC_KEY, v1Manifest } from "./v1-cache.ts";

const NAR_SIZE = 12_345;

/** References of each path, to paths before it. */
const REFERENCES = 8;

const narDigest = (index: number): Digest => digestOf(`nar ${index}`);

const shortened = (digest: Digest): number => Number.parseInt(digest.slice(7, 19), 16);

export interface LargeIndex {
  readonly entries: number;
  readonly file: string;
  readonly digest: Digest;
  readonly size: number;
}

/** Writes the file piece by piece, as Python would write it. */
export async function writeLargeIndex(file: string, entries: number): Promise<LargeIndex> {
  const hasher = new Bun.CryptoHasher("sha256");
  let size = 0;
  const handle = await open(file, "w");
  const write = async (text: string) => {
    hasher.update(text);
    size += (await handle.write(text)).bytesWritten;
  };
  // In the order of hashes, by which they refer to those before them.
  const named = Array.from({ length: entries }, (_, index) => {
    return { hash: storeHash(`large-${index}`), name: `large-${index}` };
  }).sort((a, b) => (a.hash < b.hash ? -1 : 1));
  await write('{\n  "entries": {');
  let text = "";
  for (const [index, { hash, name }] of named.entries()) {
    const references = Array.from({ length: Math.min(REFERENCES, index) }, (_, turn) => {
      const other = Math.floor((index * (turn + 1)) / (REFERENCES + 2));
      return `${named[other]?.hash}-${named[other]?.name}`;
    });
    text += `${index > 0 ? "," : ""}\n    "${hash}": ${indented(entry(index, `${hash}-${name}`, [...new Set(references)].sort()))}`;
    if (text.length > 1 << 20) {
      await write(text);
      text = "";
    }
  }
  const roots = named.slice(-200).map(({ hash }) => `\n    "${hash}"`);
  await write(
    `${text}\n  },\n  "gc_roots": [${roots.join(",")}\n  ],\n  "public_key": "${V1_PUBLIC_KEY}",\n  "version": 1\n}`,
  );
  await handle.close();
  return { entries, file, digest: `sha256:${hasher.digest("hex")}`, size };
}

function entry(index: number, baseName: string, references: readonly string[]) {
  const digest = narDigest(index);
  const lines = [
    `StorePath: /nix/store/${baseName}`,
    `URL: nar/${baseName.slice(0, 32)}.nar.xz`,
    "Compression: xz",
    `FileHash: sha256:${encodeBase32(Buffer.from(digest.slice(7), "hex"))}`,
    `FileSize: ${NAR_SIZE}`,
    `NarHash: sha256-${Buffer.from(digest.slice(7), "hex").toString("base64")}`,
    "NarSize: 54321",
    ...(references.length > 0 ? [`References: ${references.join(" ")}`] : []),
    `Deriver: ${baseName}.drv`,
    `Sig: v1-test-1:${Buffer.alloc(64, index).toString("base64")}`,
  ];
  return {
    added: "2026-04-24T14:20:10Z",
    name: baseName.slice(33),
    nar_digest: digest,
    nar_size: NAR_SIZE,
    narinfo: `${lines.join("\n")}\n`,
  };
}

const indented = (value: unknown) => JSON.stringify(value, null, 2).replaceAll("\n", "\n    ");

export class LargeStore extends MemoryStore {
  readonly #index: LargeIndex;
  /** The beginnings of their digests. */
  readonly #nars = new Set<number>();
  looked = 0;

  constructor(index: LargeIndex) {
    super();
    this.#index = index;
    for (let nar = 0; nar < index.entries; nar++) this.#nars.add(shortened(narDigest(nar)));
    // NARs are not among its blobs.
    this.refusesMissing = false;
    const bytes = new TextEncoder().encode(v1Manifest(index));
    const digest = digestOf(bytes);
    this.manifests.set(digest, { digest, mediaType: MEDIA_TYPE_MANIFEST, bytes });
    this.tags.set("cache-index", digest);
  }

  override async statBlob(digest: Digest): Promise<number | undefined> {
    if (!this.#nars.has(shortened(digest))) return super.statBlob(digest);
    this.looked++;
    return NAR_SIZE;
  }

  override async writeManifest(tag: string, mediaType: string, bytes: Uint8Array) {
    this.calls.splice(0);
    return super.writeManifest(tag, mediaType, bytes);
  }

  override async readBlob(digest: Digest) {
    return digest === this.#index.digest ? Bun.file(this.#index.file).stream() : super.readBlob(digest);
  }
}

if (import.meta.main) {
  const [, , mode, file = "", digest = "", size, entries] = process.argv;
  const store = new LargeStore({
    file,
    digest: digest as Digest,
    size: Number(size),
    entries: Number(entries),
  });
  using machine = party(store);
  const started = performance.now();
  await refresh(machine, { list: true });
  const adoption = mode === "adopt" ? await adoptV1(machine) : undefined;
  const ms = Math.round(performance.now() - started);
  const { view } = machine.database;
  const held = [...store.blobs.values()].reduce((sum, bytes) => sum + bytes.length, 0);
  console.log(
    JSON.stringify({
      ...{ count: view.count(), adoption, looked: store.looked, warnings: machine.warnings, ms },
      holds: store.tagsOf("hold-").length,
      isAdopted: view.v1Layer() === undefined,
      /** Without what only this store holds. */
      peakMiB: Math.round((peakMemory() - held) / 1024 / 1024),
    }),
  );
}

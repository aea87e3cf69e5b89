/**
 * Caches as nixcache-oci makes them, in the shapes of `tests/fixtures/v1`: JSON over many lines with its names sorted,
 * NARs as blobs that no manifest names, a manifest with an image config of three bytes.
 */
import { encodeBase32 } from "../../src/nar/base32.ts";
import { formatHash, parseHash } from "../../src/nar/hash.ts";
import { signNarInfo } from "../../src/nar/signature.ts";
import { formatPublicKey, generateSecretKey, publicKeyOf } from "../../src/nar/signing-key.ts";
import { type Digest, digestOf } from "../../src/oci/digest.ts";
import { MEDIA_TYPE_MANIFEST } from "../../src/oci/manifest.ts";
import type { Store } from "../../src/oci/store.ts";
import { storeHash } from "./protocol.ts";
import { pathInfo } from "./publish.ts";

/** Protects nothing. */
export const V1_KEY = generateSecretKey("v1-test-1", new Uint8Array(32).fill(7));
export const V1_PUBLIC_KEY = formatPublicKey(publicKeyOf(V1_KEY));

export interface V1Fields {
  name: string;
  narinfo: string;
  nar_digest: string;
  nar_size: number;
  added: string;
}

export interface V1Path {
  readonly hash: string;
  /** `nar/<store hash>.nar.xz` */
  readonly oldUrl: string;
  /** `nar/<base32 of FileHash>.nar.xz` */
  readonly newUrl: string;
  readonly content: Uint8Array<ArrayBuffer>;
  readonly digest: Digest;
  readonly fields: V1Fields;
}

/** An entry for a path of `publish.ts`, as the newest version writes it, signed. Its file is no real xz. */
export function v1Path(
  name: string,
  references: readonly string[] = [],
  added = "2026-04-24T14:20:10Z",
  content: Uint8Array<ArrayBuffer> = new TextEncoder().encode(`xz of ${name}`),
): V1Path {
  const hash = storeHash(name);
  const { path, narHash, narSize, references: paths } = pathInfo({ name, references });
  const digest = digestOf(content);
  const fileHash = encodeBase32(Buffer.from(digest.slice(7), "hex"));
  const baseNames = paths.map((reference) => reference.slice("/nix/store/".length));
  const info = {
    storePath: path,
    url: "",
    compression: "xz",
    narHash,
    narSize,
    references: baseNames,
    sigs: [],
  };
  const lines = [
    `StorePath: ${path}`,
    `URL: nar/${hash}.nar.xz`,
    "Compression: xz",
    `FileHash: sha256:${fileHash}`,
    `FileSize: ${content.length}`,
    `NarHash: ${formatHash(parseHash(narHash, name), "sri")}`,
    `NarSize: ${narSize}`,
    ...(baseNames.length > 0 ? [`References: ${baseNames.join(" ")}`] : []),
    `Sig: ${signNarInfo(info, V1_KEY)}`,
  ];
  return {
    hash,
    oldUrl: `nar/${hash}.nar.xz`,
    newUrl: `nar/${fileHash}.nar.xz`,
    content,
    digest,
    fields: { name, narinfo: `${lines.join("\n")}\n`, nar_digest: digest, nar_size: content.length, added },
  };
}

/** The same path with some fields of its entry, or its narinfo, changed. */
export function bent(path: V1Path, change: (fields: V1Fields) => Record<string, unknown>): V1Path {
  return { ...path, fields: { ...path.fields, ...change(path.fields) } as V1Fields };
}

/** The file, byte for byte as Python's json.dump with indent and sort_keys. */
export function v1Text(paths: readonly V1Path[], more: Record<string, unknown> = {}): string {
  const index = {
    entries: Object.fromEntries(paths.map(({ hash, fields }) => [hash, fields])),
    gc_roots: paths.slice(-1).map(({ hash }) => hash),
    generated: "2026-04-24T14:20:11Z",
    image: "ghcr.io/owner/repo/nix-cache",
    public_key: V1_PUBLIC_KEY,
    registry: "ghcr.io",
    repo: "owner/repo",
    version: 1,
    ...more,
  };
  return JSON.stringify(sorted(index), null, 2).replace(
    /[\u0080-\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function sorted(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, item]) => [key, sorted(item)]));
}

/** The manifest, as jq writes it. */
export function v1Manifest(index: { digest: Digest; size: number }, layerType?: string): string {
  return JSON.stringify(
    {
      schemaVersion: 2,
      mediaType: MEDIA_TYPE_MANIFEST,
      config: { mediaType: "application/vnd.oci.image.config.v1+json", ...describe(CONFIG) },
      layers: [
        {
          mediaType: layerType ?? "application/vnd.nix.cache.index.v1+json",
          digest: index.digest,
          size: index.size,
        },
      ],
    },
    null,
    2,
  );
}

const CONFIG = new TextEncoder().encode("{}\n");

function describe(bytes: Uint8Array): { digest: Digest; size: number } {
  return { digest: digestOf(bytes), size: bytes.length };
}

/** Pushes NARs, index and manifest. Answers the digest of the index. */
export async function pushV1(
  store: Store,
  paths: readonly V1Path[],
  more: Record<string, unknown> & { text?: string } = {},
): Promise<Digest> {
  const { text = v1Text(paths, more) } = more;
  const index = new TextEncoder().encode(text);
  for (const bytes of [...paths.map(({ content }) => content), CONFIG, index])
    await store.writeBlob({ ...describe(bytes), content: bytes });
  const manifest = new TextEncoder().encode(v1Manifest(describe(index)));
  await store.writeManifest("cache-index", MEDIA_TYPE_MANIFEST, manifest);
  return digestOf(index);
}

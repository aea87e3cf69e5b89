/**
 * OCI image manifests: the type, its bytes, and strict reading of bytes that somebody else may have written.
 * https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md
 *
 * Fields that we have no use for (`subject`, `urls`, `data`, `platform`) are dropped when decoding: who puts a
 * manifest under another tag puts its own bytes again, never an encoding of what was decoded.
 */
import { messageOf, NixcacheError, preview } from "../errors.ts";
import { type Digest, digestOf, parseDigest } from "./digest.ts";

export const MEDIA_TYPE_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
export const MEDIA_TYPE_INDEX = "application/vnd.oci.image.index.v1+json";
export const MEDIA_TYPE_EMPTY = "application/vnd.oci.empty.v1+json";
export const MEDIA_TYPE_IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json";
/** The media type of our layers: it passes the allow-lists of all registries, and skopeo copies it untouched. */
export const MEDIA_TYPE_LAYER = "application/octet-stream";

/** What registries must take at least, and what zot and distribution take at most. */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface ImageManifest {
  readonly schemaVersion: 2;
  readonly mediaType: typeof MEDIA_TYPE_MANIFEST;
  readonly artifactType?: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly annotations?: Readonly<Record<string, string>>;
}

/** The content of `EMPTY_CONFIG`. https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md#guidance-for-an-empty-descriptor */
export const EMPTY_CONFIG_BYTES: Uint8Array = new TextEncoder().encode("{}");
export const EMPTY_CONFIG: Descriptor = describe(MEDIA_TYPE_EMPTY, EMPTY_CONFIG_BYTES);

/** The content of `IMAGE_CONFIG`: the least that the specification calls a valid image configuration. */
export const IMAGE_CONFIG_BYTES: Uint8Array = new TextEncoder().encode(
  '{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[]}}',
);
export const IMAGE_CONFIG: Descriptor = describe(MEDIA_TYPE_IMAGE_CONFIG, IMAGE_CONFIG_BYTES);

/** A descriptor of bytes in memory. */
export function describe(mediaType: string, bytes: Uint8Array): Descriptor {
  return { mediaType, digest: digestOf(bytes), size: bytes.length };
}

/**
 * The same manifest for registries that refuse custom artifact types (GitLab, Quay, ECR): an image
 * configuration instead of the empty one, no `artifactType`. `IMAGE_CONFIG_BYTES` must be uploaded first.
 */
export function withoutArtifactType(manifest: ImageManifest): ImageManifest {
  const { artifactType: _, ...rest } = manifest;
  return { ...rest, config: IMAGE_CONFIG };
}

/**
 * The bytes of a manifest: JSON without spaces, fields in the order of the specification, annotations sorted
 * by name. Equal manifests have equal bytes.
 * @throws `internal` above 4 MiB.
 */
export function encodeManifest(manifest: ImageManifest): Uint8Array {
  const bytes = new TextEncoder().encode(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA_TYPE_MANIFEST,
      artifactType: manifest.artifactType,
      config: ordered(manifest.config),
      layers: manifest.layers.map(ordered),
      annotations: sorted(manifest.annotations),
    }),
  );
  if (bytes.length > MAX_MANIFEST_BYTES) {
    throw new NixcacheError(
      "internal",
      `encode manifest: ${manifest.layers.length} layers make ${bytes.length} bytes, expected at most ${MAX_MANIFEST_BYTES}`,
    );
  }
  return bytes;
}

/**
 * Reads a manifest. A missing `mediaType` is taken for the OCI one, as the specification allows.
 * @param where the subject of error messages, such as a tag.
 * @throws `corrupt`, naming the field, what was expected and what was found.
 */
export function decodeManifest(bytes: Uint8Array, where: string): ImageManifest {
  if (bytes.length > MAX_MANIFEST_BYTES) {
    throw new NixcacheError(
      "corrupt",
      `${where}: got ${bytes.length} bytes, expected a manifest of at most ${MAX_MANIFEST_BYTES}`,
    );
  }
  const json = object(parseJson(bytes, where), where);
  if (json.schemaVersion !== 2) throw mismatch(`${where}: schemaVersion`, json.schemaVersion, "2");
  const mediaType = json.mediaType ?? MEDIA_TYPE_MANIFEST;
  if (mediaType !== MEDIA_TYPE_MANIFEST)
    throw mismatch(`${where}: mediaType`, mediaType, MEDIA_TYPE_MANIFEST);
  const layers = json.layers;
  if (!Array.isArray(layers)) throw mismatch(`${where}: layers`, layers, "a list");
  const artifactType = json.artifactType;
  return {
    schemaVersion: 2,
    mediaType: MEDIA_TYPE_MANIFEST,
    ...(artifactType === undefined ? {} : { artifactType: string(artifactType, `${where}: artifactType`) }),
    config: decodeDescriptor(json.config, `${where}: config`),
    layers: layers.map((layer, i) => decodeDescriptor(layer, `${where}: layers[${i}]`)),
    ...decodeAnnotations(json.annotations, `${where}: annotations`),
  };
}

/** @throws `corrupt`. Sizes are whole numbers from 0 to 2^53 - 1. */
export function decodeDescriptor(value: unknown, where: string): Descriptor {
  const json = object(value, where);
  const size = json.size;
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) {
    throw mismatch(`${where}.size`, size, "a size in bytes");
  }
  return {
    mediaType: string(json.mediaType, `${where}.mediaType`),
    digest: parseDigest(json.digest, `${where}.digest`),
    size,
    ...decodeAnnotations(json.annotations, `${where}.annotations`),
  };
}

/** JSON of bytes that must be UTF-8. @throws `corrupt`. */
export function parseJson(bytes: Uint8Array, where: string): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (cause) {
    throw new NixcacheError(
      "corrupt",
      `${where}: got ${bytes.length} bytes that are no JSON (${messageOf(cause)})`,
      { cause },
    );
  }
}

function decodeAnnotations(value: unknown, where: string): { annotations?: Record<string, string> } {
  // Some tools write null for "none".
  if (value === undefined || value === null) return {};
  const entries = Object.entries(object(value, where)).map(
    ([name, text]) => [name, string(text, `${where}.${name.slice(0, 200)}`, true)] as const,
  );
  return { annotations: Object.fromEntries(entries) };
}

function ordered(descriptor: Descriptor): unknown {
  const { mediaType, digest, size, annotations } = descriptor;
  return { mediaType, digest, size, annotations: sorted(annotations) };
}

function sorted(record: Readonly<Record<string, string>> | undefined): Record<string, string> | undefined {
  if (record === undefined) return undefined;
  return Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
}

function object(value: unknown, where: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw mismatch(where, value, "an object");
}

function string(value: unknown, where: string, mayBeEmpty = false): string {
  if (typeof value === "string" && (mayBeEmpty || value !== "")) return value;
  throw mismatch(where, value, "a text");
}

function mismatch(where: string, found: unknown, expected: string): NixcacheError {
  const got = found === undefined ? "nothing" : preview(found, 200);
  return new NixcacheError("corrupt", `${where}: got ${got}, expected ${expected}`);
}

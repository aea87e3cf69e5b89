/**
 * `index.json` of a layout: which manifest is under which tag. Pure.
 * https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md#indexjson-file
 *
 * Entries and fields of other tools are kept as they are, in their order.
 */
import { NixcacheError } from "../errors.ts";
import type { Digest } from "./digest.ts";
import { decodeDescriptor, MEDIA_TYPE_INDEX, parseJson } from "./manifest.ts";
import { isTag } from "./reference.ts";

/** https://github.com/opencontainers/image-spec/blob/v1.1.0/annotations.md */
const REF_NAME = "org.opencontainers.image.ref.name";

/** Some 200,000 tags; more is no cache of ours. */
export const MAX_INDEX_BYTES = 64 * 1024 * 1024;

export interface IndexEntry {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  /** Undefined for an entry without a name, or with one that is no tag. */
  readonly tag: string | undefined;
  /** As it is in the file. */
  readonly json: unknown;
}

export interface LayoutIndex {
  readonly entries: readonly IndexEntry[];
  /** The fields of the file beside `manifests`. */
  readonly fields: Readonly<Record<string, unknown>>;
}

export const EMPTY_INDEX: LayoutIndex = {
  entries: [],
  fields: { schemaVersion: 2, mediaType: MEDIA_TYPE_INDEX },
};

/** @throws `corrupt`, naming the file and the entry. */
export function decodeIndex(bytes: Uint8Array, file: string): LayoutIndex {
  const json = parseJson(bytes, file);
  const valid = typeof json === "object" && json !== null && "manifests" in json;
  if (!valid || (json.manifests !== null && !Array.isArray(json.manifests))) {
    throw new NixcacheError(
      "corrupt",
      `${file}: got JSON without a list "manifests", expected an image index`,
    );
  }
  const { manifests, ...fields } = json;
  const list: unknown[] = Array.isArray(manifests) ? manifests : [];
  return { fields, entries: list.map((entry, i) => decodeEntry(entry, `${file}: manifests[${i}]`)) };
}

/** @throws `corrupt` when what other tools left in it is nested too deeply to be written again. */
export function encodeIndex({ fields, entries }: LayoutIndex): Uint8Array {
  let text: string;
  try {
    text = JSON.stringify({ ...fields, manifests: entries.map(({ json }) => json) });
  } catch (cause) {
    throw new NixcacheError("corrupt", "index.json: a field is nested too deeply to be written", { cause });
  }
  return new TextEncoder().encode(text);
}

/** The entry of a tag (the last one, should a tool have left several), or any one of a digest. */
export function findEntry({ entries }: LayoutIndex, tagOrDigest: string): IndexEntry | undefined {
  return entries.findLast(({ tag, digest }) => tag === tagOrDigest || digest === tagOrDigest);
}

/** Puts a manifest under a tag, in place of what is there, or without one under its digest. */
export function withManifest(
  index: LayoutIndex,
  manifest: { readonly mediaType: string; readonly digest: Digest; readonly size: number },
  tag: string | undefined,
): LayoutIndex {
  if (tag === undefined && findEntry(index, manifest.digest) !== undefined) return index;
  const { mediaType, digest, size } = manifest;
  const json = {
    mediaType,
    digest,
    size,
    ...(tag === undefined ? {} : { annotations: { [REF_NAME]: tag } }),
  };
  const others = tag === undefined ? index.entries : index.entries.filter((entry) => entry.tag !== tag);
  return { fields: index.fields, entries: [...others, { mediaType, digest, size, tag, json }] };
}

/** Without the manifest, under whatever tags. */
export function withoutManifest(index: LayoutIndex, digest: Digest): LayoutIndex {
  return { fields: index.fields, entries: index.entries.filter((entry) => entry.digest !== digest) };
}

export function tagsOf({ entries }: LayoutIndex): string[] {
  return [...new Set(entries.map(({ tag }) => tag).filter((tag) => tag !== undefined))];
}

function decodeEntry(json: unknown, where: string): IndexEntry {
  const { mediaType, digest, size, annotations } = decodeDescriptor(json, where);
  const name = annotations?.[REF_NAME];
  return { mediaType, digest, size, tag: name !== undefined && isTag(name) ? name : undefined, json };
}

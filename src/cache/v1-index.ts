/**
 * The index of a cache made by https://github.com/cmspam/nixcache-oci ("v1"): the tag `cache-index`, whose one layer is
 * a JSON file, mostly over many lines and with its names sorted.
 *
 *     {"version":1,"public_key":"name:base64","generated":"2026-04-24T14:20:10Z","gc_roots":["<store hash>"],
 *      "entries":{"<store hash>":{"name":"…","narinfo":"StorePath: …\nURL: nar/<store hash>.nar.xz\n…",
 *                                 "nar_digest":"sha256:…","nar_size":123,"added":"2026-04-24T14:20:10Z"}}}
 *
 * Odd: the file names say which store path it is, not which bytes; NarHash is SRI; References is left out where there
 * are none. The first version had narinfos of `nix copy`, some without the newline at their end. So each becomes a
 * line of ours, named by content: signatures cover neither URL nor FileHash.
 */
import { messageOf, NixcacheError, preview, printable } from "../errors.ts";
import { encodeBase32 } from "../nar/base32.ts";
import { parseNarInfo } from "../nar/narinfo.ts";
import { parsePublicKey } from "../nar/signing-key.ts";
import { isStoreHash, storeHashOf } from "../nar/store-path.ts";
import { digestHex, parseDigest } from "../oci/digest.ts";
import type { ImageManifest } from "../oci/manifest.ts";
import { type Entry, type EntryLine, encodeEntry, MAX_LINE_BYTES } from "./entry.ts";
import { asObject, parseJsonObject } from "./json.ts";
import { JsonMembers } from "./json-members.ts";
import type { BlobReference } from "./manifests.ts";

const LAYER_TYPE = "application/vnd.nix.cache.index.v1+json";

/** The version that we read. The tag and the media type are those of other versions too. */
export const V1_VERSION = 1;

/** What a cache of nixcache-oci has for one store hash. */
export type V1Item =
  | { readonly entry: Entry; readonly line: EntryLine }
  /** One that cannot be read, and why. */
  | { readonly hash: string; readonly name: string; readonly problem: string };

export interface V1Head {
  /** As the file states it; other versions are other formats. */
  readonly version: unknown;
  /** `name:base64` of the key that it was signed with, where there is one. */
  readonly keys: readonly string[];
  /** When the file was made, in milliseconds since 1970. */
  readonly generated?: number;
  /** Store hashes of the outputs that were published, the first `MAX_ROOTS` of them. */
  readonly roots: ReadonlySet<string>;
}

/** Bytes of JSON; a line of ours that is made of it has a few hundred more. */
const MAX_ENTRY_BYTES = MAX_LINE_BYTES / 2;

/** Store hashes that are kept as roots, some 10 MiB: one for each output of each publish that there ever was. */
const MAX_ROOTS = 100_000;

/** Broken entries that a message names. */
const MAX_SHOWN = 5;

/** The blob of the index; undefined for the manifest of another tool. */
export function v1IndexOf(manifest: ImageManifest): BlobReference | undefined {
  const [layer] = manifest.layers;
  return layer?.mediaType === LAYER_TYPE ? { digest: layer.digest, size: layer.size } : undefined;
}

/** Takes the file in chunks; what is held is one entry, and the head. */
export class V1IndexParser {
  readonly #where: string;
  readonly #members: JsonMembers;
  readonly #roots = new Set<string>();
  #version: unknown;
  #keys: readonly string[] = [];
  #generated: number | undefined;

  /** @param where names the index in messages */
  constructor(where: string) {
    this.#where = where;
    this.#members = new JsonMembers(where, { entries: "object", gc_roots: "list" }, MAX_ENTRY_BYTES);
  }

  /** @throws `corrupt` when the file as a whole is no JSON object. */
  *push(chunk: Uint8Array): Generator<V1Item> {
    for (const { of, key, value } of this.#members.push(chunk)) {
      if (of === "entries") yield readItem(key, value);
      else if (of === "gc_roots") this.#addRoot(value);
      else this.#readField(key, value);
    }
  }

  /** The head, after the last chunk. @throws `corrupt` when the file has broken off, or lacks its entries. */
  end(): V1Head {
    this.#members.end();
    if (this.#version === V1_VERSION && !this.#members.found.has("entries"))
      throw new NixcacheError("corrupt", `${this.#where}: got no entries, expected an object`);
    return {
      version: this.#version,
      keys: this.#keys,
      ...(this.#generated !== undefined && { generated: this.#generated }),
      roots: this.#roots,
    };
  }

  #addRoot(value: string | undefined): void {
    const hash = value?.slice(1, -1) ?? "";
    if (isStoreHash(hash) && this.#roots.size < MAX_ROOTS) this.#roots.add(hash);
  }

  #readField(key: string, value: string | undefined): void {
    if (key === "version") this.#version = this.#parse(key, value);
    if (key === "public_key") this.#keys = keysOf(this.#parse(key, value));
    if (key === "generated") this.#generated = time(this.#parse(key, value));
  }

  #parse(key: string, value: string | undefined): unknown {
    return parseJsonObject(`{"value":${value ?? "?"}}`, `${this.#where}, ${preview(key)}`).value;
  }
}

/** Broken entries for a message: how many, and the first of them. */
export class BrokenEntries {
  count = 0;
  readonly #shown: string[] = [];

  /** @param problem why it is broken */
  add(name: string, problem: string): void {
    this.count++;
    if (this.#shown.length < MAX_SHOWN) this.#shown.push(`${preview(name, 60)} (${problem.slice(0, 200)})`);
  }

  toString(): string {
    const others = this.count - this.#shown.length;
    return printable(this.#shown.join(", ") + (others > 0 ? `, and ${others} more` : ""));
  }
}

/** What is no key is passed over: clients and `verify` would refuse it. */
function keysOf(value: unknown): string[] {
  if (typeof value !== "string") return [];
  const text = value.trim();
  try {
    parsePublicKey(text);
    return [text];
  } catch {
    return [];
  }
}

function time(value: unknown): number | undefined {
  const ms = typeof value === "string" ? Date.parse(value) : Number.NaN;
  return Number.isNaN(ms) || ms < 0 ? undefined : ms;
}

function readItem(hash: string, text: string | undefined): V1Item {
  let name = hash;
  try {
    if (text === undefined) {
      throw new NixcacheError("corrupt", `longer than ${MAX_ENTRY_BYTES} bytes, or no UTF-8`);
    }
    const value = parseJsonObject(text, "the entry");
    if (typeof value.name === "string") name = value.name;
    const entry = decodeV1Entry(hash, value);
    return { entry, line: encodeEntry(entry) };
  } catch (error) {
    if (!(error instanceof NixcacheError)) throw error;
    return { hash, name, problem: messageOf(error) };
  }
}

/**
 * The entry with its NAR named by content.
 * @throws `corrupt` or `nix-store`, saying what contradicts what: one of the two may be of other bytes (rule 5)
 */
export function decodeV1Entry(hash: string, value: unknown): Entry {
  const { narinfo, nar_digest, nar_size, added } = asObject(value, "the entry");
  if (typeof narinfo !== "string")
    throw new NixcacheError("corrupt", `got "narinfo": ${preview(narinfo)}, expected a text`);
  const info = parseNarInfo(narinfo.endsWith("\n") ? narinfo : `${narinfo}\n`);
  if (storeHashOf(info.storePath) !== hash) {
    throw new NixcacheError("corrupt", `it is under ${preview(hash)}, its narinfo is of ${info.storePath}`);
  }
  const digest = parseDigest(nar_digest, '"nar_digest"');
  const digits = encodeBase32(Buffer.from(digestHex(digest), "hex"));
  if (info.fileHash !== undefined && info.fileHash !== `sha256:${digits}`) {
    throw new NixcacheError("corrupt", `its narinfo has ${info.fileHash}, its NAR is ${digest}`);
  }
  const size = nar_size ?? info.fileSize;
  if (typeof size !== "number" || size !== (info.fileSize ?? size)) {
    const detail = info.fileSize === undefined ? "" : `, its narinfo has FileSize: ${info.fileSize}`;
    throw new NixcacheError("corrupt", `got "nar_size": ${preview(nar_size)}${detail}`);
  }
  return {
    info: {
      ...info,
      url: `nar/${digits}${fileEnding(info.url)}`,
      fileHash: `sha256:${digits}`,
      fileSize: size,
    },
    parts: [{ blob: digest, size, offset: 0, length: size }],
    // Unknown is the oldest: any other line for the path is shown first.
    added: Math.floor((time(added) ?? 0) / 1000),
  };
}

/** Such as `.nar.xz`. */
function fileEnding(url: string): string {
  const [, ending] = /^nar\/[0-9A-Za-z]+(\.nar(?:\.[0-9a-z]{1,8})?)$/.exec(url) ?? [];
  if (ending !== undefined) return ending;
  throw new NixcacheError("corrupt", `got ${preview(`URL: ${url}`, 300)}, expected nar/<store hash>.nar.xz`);
}

/**
 * The publish record: who published what from where. It is the first line of a segment's index layer, and a
 * root layer repeats it for each segment that it covers, so that history needs no further request.
 */

import { NixcacheError, preview } from "../errors.ts";
import { type Digest, parseDigest } from "../oci/digest.ts";
import { redactUrls } from "../redact.ts";
import { asObject, type JsonObject } from "./json.ts";
import { V1_TAG } from "./tags.ts";

export interface PublishRecord {
  /** When it was published, ISO 8601 in UTC, by the publisher's clock. */
  readonly time: string;
  /** Such as `nixcache 1.2.3`. */
  readonly tool: string;
  /**
   * What the generation is the newest of: a repository and branch, `pin:NAME`, `paths` for a publish of bare store
   * paths, or `nixcache-oci` for the cache of that tool that was here before.
   */
  readonly source: string;
  /** Attribute or path as given → output path. */
  readonly roots: Readonly<Record<string, string>>;
  /** Public keys whose signatures the publisher made, as `name:base64`. */
  readonly keys: readonly string[];
  /** Digest of the entry lines, by which an unchanged publish is recognised. */
  readonly content: Digest;
  /** Number of entry lines. */
  readonly entries: number;
  /** Nix system, such as `x86_64-linux`. */
  readonly system?: string;
  /**
   * Which outputs were asked for, such as `flake ./config: packages, devShells`. Generations of one source and
   * selection succeed each other, whatever outputs there were; without one the names of the roots stand for it.
   */
  readonly selection?: string;
  /** Git branch or tag that was published. */
  readonly branch?: string;
  /** Git commit that was published. */
  readonly revision?: string;
  /** Where to read about the run that published. */
  readonly run?: string;
  /** Only a part of what the run publishes, for the case that it does not come to its end. */
  readonly partial?: true;
  /** Digest of the index of nixcache-oci whose entries these are: readers look no more at that one. */
  readonly adopted?: Digest;
  /** Of a pin: it lives for so many days from this generation on. Without it for ever. */
  readonly keepDays?: number;
  /** Of a pin: so many of its revisions live. Without it all do. */
  readonly keepRevisions?: number;
}

const OPTIONAL = ["system", "selection", "branch", "revision", "run"] as const;
const OPTIONAL_COUNTS = ["keepDays", "keepRevisions"] as const;

export function encodeRecord(record: PublishRecord): JsonObject {
  return { ...withoutSecrets(record) };
}

/** References of flakes may have passwords in them. Whoever may read the cache may read its records. */
function withoutSecrets(record: PublishRecord): PublishRecord {
  const texts: Partial<Record<"source" | (typeof OPTIONAL)[number], string>> = {};
  for (const field of ["source", ...OPTIONAL] as const) {
    const value = record[field];
    if (value !== undefined) texts[field] = redactUrls(value);
  }
  const roots = Object.entries(record.roots).map(([name, path]) => [redactUrls(name), path]);
  return { ...record, ...texts, roots: Object.fromEntries(roots) };
}

/** @throws `corrupt`, naming `where`. Fields of later versions are dropped. */
export function decodeRecord(value: unknown, where: string): PublishRecord {
  const object = asObject(value, where);
  const entries = object.entries;
  if (!Number.isSafeInteger(entries) || (entries as number) < 0)
    throw wrong(where, "entries", entries, "a count");
  const keys = object.keys;
  if (!Array.isArray(keys) || !keys.every((key) => typeof key === "string")) {
    throw wrong(where, "keys", keys, "a list of public keys");
  }
  const roots = asObject(object.roots, `${where}, "roots"`);
  for (const [name, path] of Object.entries(roots)) {
    if (typeof path !== "string") throw wrong(where, `roots.${name}`, path, "a store path");
  }
  const optional: { -readonly [K in (typeof OPTIONAL)[number]]?: string } = {};
  for (const field of OPTIONAL) {
    if (object[field] !== undefined) optional[field] = text(object, field, where);
  }
  const counts: { -readonly [K in (typeof OPTIONAL_COUNTS)[number]]?: number } = {};
  for (const field of OPTIONAL_COUNTS) {
    const count = object[field];
    if (count === undefined) continue;
    if (!Number.isSafeInteger(count) || (count as number) < 1) throw wrong(where, field, count, "a count");
    counts[field] = count as number;
  }
  // Earlier versions wrote what they were given.
  return withoutSecrets({
    time: text(object, "time", where),
    tool: text(object, "tool", where),
    source: text(object, "source", where),
    roots: roots as Record<string, string>,
    keys,
    content: parseDigest(object.content, where),
    entries: entries as number,
    ...optional,
    ...counts,
    ...(object.partial === true && { partial: true as const }),
    ...(object.adopted !== undefined && { adopted: parseDigest(object.adopted, `${where}, "adopted"`) }),
  });
}

/** The source of bare store paths: they belong to no repository, so that none succeeds another. */
export const PATHS_SOURCE = "paths";

/** The source of what was adopted from nixcache-oci: a whole cache, of whatever branches and systems. */
export const V1_SOURCE = "nixcache-oci";

/** What is known of a publish by nixcache-oci. @param index its digest. @param time ISO 8601 */
export function v1Record(index: Digest, keys: readonly string[], time: string): PublishRecord {
  const line = { source: V1_SOURCE, selection: V1_TAG };
  return { time, tool: V1_SOURCE, ...line, roots: {}, keys, content: index, entries: 0 };
}

/** Before the name of a pin, in its source. */
export const PIN_PREFIX = "pin:";

/** Of a record, what tells which others it succeeds. */
type LineFields = Pick<PublishRecord, "source" | "system" | "selection" | "roots">;

/** Names a source and selection: of two generations with the same one, the newer succeeds the older. */
export function lineOf(record: LineFields): string {
  // A pin is a name for one thing, whatever it is about at the time.
  if (record.source.startsWith(PIN_PREFIX)) return JSON.stringify([record.source]);
  return JSON.stringify([record.source, record.system ?? null, selection(record)]);
}

/** Whether two records are generations of the same source and selection. */
export function sameLine(a: LineFields, b: LineFields): boolean {
  return lineOf(a) === lineOf(b);
}

function selection(record: LineFields): string {
  return record.selection ?? JSON.stringify(Object.keys(record.roots).sort());
}

function text(object: JsonObject, field: string, where: string): string {
  const value = object[field];
  if (typeof value !== "string") throw wrong(where, field, value, "a text");
  return value;
}

function wrong(where: string, field: string, found: unknown, expected: string): NixcacheError {
  return new NixcacheError(
    "corrupt",
    `${where}: got ${preview(field)}: ${preview(found)}, expected ${expected}`,
  );
}

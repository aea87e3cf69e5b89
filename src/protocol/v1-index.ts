/**
 * The index of nixcache-oci beside our generations: what is under its tag, and reading it. The tag moves, and is never
 * written by us.
 */
import type { Entry, EntryLine } from "../cache/entry.ts";
import type { V1State } from "../cache/index-reader.ts";
import type { BlobReference } from "../cache/manifests.ts";
import { V1_TAG } from "../cache/tags.ts";
import { BrokenEntries, V1_VERSION, type V1Head, V1IndexParser, v1IndexOf } from "../cache/v1-index.ts";
import { NixcacheError } from "../errors.ts";
import { verifyNarInfo } from "../nar/signature.ts";
import { decodeManifest } from "../oci/manifest.ts";
import { discardBlob, streamBlob } from "../oci/spool.ts";
import type { BlobSource } from "../oci/store.ts";
import type { ProtocolContext } from "./context.ts";
import { fetchLayer } from "./layer-blob.ts";

/**
 * What is under the tag, `known` itself where that is the same; undefined where there is no such tag.
 * @param tags a list, where there is one: whoever has never seen the tag asks for it only when it is listed
 */
export async function findV1(
  context: ProtocolContext,
  known: V1State | undefined,
  tags: readonly string[] | undefined,
): Promise<V1State | undefined> {
  const { store, signal } = context;
  if (known === undefined && !tags?.includes(V1_TAG)) return undefined;
  const stored = await store.readManifest(V1_TAG, { ifNot: known?.manifest, signal });
  if (stored === "unchanged") return known;
  if (stored === undefined) return undefined;
  const { digest: manifest, bytes } = stored;
  const index = indexIn(bytes, `${V1_TAG} of ${store.name}`);
  if (index === undefined) {
    context.warn(`${V1_TAG} of ${store.name} is of another format than nixcache-oci's first one: not read`);
    return { manifest };
  }
  return known?.index?.digest === index.digest ? { ...known, manifest } : { manifest, index };
}

/** Undefined for a manifest of another tool, of whatever kind. */
function indexIn(bytes: Uint8Array, where: string): BlobReference | undefined {
  try {
    return v1IndexOf(decodeManifest(bytes, where));
  } catch (error) {
    if (error instanceof NixcacheError && error.code === "corrupt") return undefined;
    throw error;
  }
}

/**
 * Reads the entries one by one; those that are broken are told in one warning.
 * @returns the head; undefined for an index of another version
 * @throws `corrupt` when the index as a whole is absent or damaged: that is not an empty one (rule 1)
 */
export async function readV1Index(
  context: ProtocolContext,
  index: BlobReference,
  take: (line: EntryLine) => void,
): Promise<V1Head | undefined> {
  const where = nameOf(context, index);
  const broken = new BrokenEntries();
  const blob = await fetchV1Index(context, index);
  const parser = new V1IndexParser(where);
  let count = 0;
  let head: V1Head;
  try {
    for await (const chunk of streamBlob(blob)) {
      for (const item of parser.push(chunk)) {
        count++;
        if ("line" in item) {
          if (countsV1(context, item)) take(item.line);
        } else broken.add(item.name, item.problem);
      }
    }
    head = parser.end();
  } catch (error) {
    throw withHint(error);
  } finally {
    discardBlob(blob);
  }
  if (broken.count > 0) context.warn(`${where}: ${broken.count} of ${count} entries are broken: ${broken}`);
  if (head.version === V1_VERSION) return head;
  context.warn(`${where} is of another version than ${V1_VERSION}: not read`);
  return undefined;
}

/** Whether an entry counts for this reader: the index itself is signed by nobody, and what it has is not bound to it. */
export function countsV1(
  { trust }: Pick<ProtocolContext, "trust">,
  { entry }: { readonly entry: Entry },
): boolean {
  return trust?.keys === undefined || verifyNarInfo(entry.info, trust.keys);
}

/** The index whole and checked; discard it afterwards. @throws `corrupt` */
export async function fetchV1Index(context: ProtocolContext, index: BlobReference): Promise<BlobSource> {
  const { store, spool, signal } = context;
  try {
    const blob = await fetchLayer(store, spool, index, { signal });
    if (blob !== undefined) return blob;
  } catch (error) {
    throw withHint(error);
  }
  throw withHint(new NixcacheError("corrupt", `${nameOf(context, index)}: its blob is absent`));
}

function nameOf({ store }: ProtocolContext, { digest }: BlobReference): string {
  return `the index ${digest} under ${V1_TAG} of ${store.name}`;
}

/** What a person can do about an index that is damaged. */
function withHint(error: unknown): unknown {
  if (!(error instanceof NixcacheError && error.code === "corrupt")) return error;
  const hint = `Try again; when it stays, publish once more with nixcache-oci, or delete the tag ${V1_TAG} if the cache was adopted.`;
  return new NixcacheError("corrupt", error.message, { hint, cause: error });
}

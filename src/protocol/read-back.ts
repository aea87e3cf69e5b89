/**
 * After the first commit to a cache: reading it back as a stranger would. The tag by its name and in the list, the
 * manifest byte for byte, one blob whole and by a range. A registry that changes, drops or hides what it was given is
 * told at the first publish, not by readers who find nothing. Remembered in the local index once all is right.
 */
import type { BlobReference } from "../cache/manifests.ts";
import { type GenerationName, parseTag, segmentTag } from "../cache/tags.ts";
import { NixcacheError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import { EMPTY_CONFIG } from "../oci/manifest.ts";
import type { ByteRange } from "../oci/store.ts";
import type { ProtocolContext } from "./context.ts";
import { readTag } from "./tagged.ts";
import { updateIndex } from "./update-index.ts";

/** Lists, and now and then tags, are some seconds behind. All waits together are two minutes. */
const WAITS_MS = [500, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 60_000] as const;

/** A wait from which on a person should know what is waited for. */
const LONG_WAIT_MS = 8_000;

export interface Committed {
  readonly name: GenerationName;
  /** As it was stored. */
  readonly manifest: Digest;
  /** What it names, its index layer among it. */
  readonly blobs: readonly BlobReference[];
}

/** @throws `unreadable` when nobody could read the generation, which is committed all the same */
export async function checkReadBack(context: ProtocolContext, committed: Committed): Promise<void> {
  const { store, database, host } = context;
  // A folder keeps what it is given.
  if (store.strictness === "strict" || database.view.state().readBackAt !== undefined) return;
  try {
    await checkTag(context, committed);
    await checkList(context, committed);
    await checkBlob(context, committed);
  } catch (error) {
    if (!(error instanceof NixcacheError)) throw error;
    if (error.code !== "protocol" && error.code !== "corrupt") throw error;
    throw unreadable(`${store.name}: what was published cannot be read back: ${error.message}`, error);
  }
  await updateIndex(context, async (change) => {
    const { ignoresRange: _, ...state } = database.view.state();
    const ignoresRange = store.ignoresRange?.() && { ignoresRange: true };
    change.setState({ ...state, ...ignoresRange, readBackAt: host.now() });
  });
}

async function checkTag(context: ProtocolContext, { name, manifest }: Committed): Promise<void> {
  const { store, signal } = context;
  const tag = segmentTag(name);
  const found = await untilThere(context, () => readTag(store, tag, { signal }));
  if (found === undefined) {
    const others = await listedAs(context, name);
    const where = others === undefined ? "" : `, but as ${others}`;
    throw unreadable(
      `${store.name}: it took a manifest under the tag ${tag} and does not have it there${where}`,
    );
  }
  if (found.stored.digest === manifest) return;
  throw unreadable(
    `${store.name}: under the tag ${tag} it has the manifest ${found.stored.digest}, expected ${manifest}`,
  );
}

async function checkList(context: ProtocolContext, { name }: Committed): Promise<void> {
  const { store, signal } = context;
  const isListed = await untilThere(context, async () => {
    const tags = (await store.listTags({ signal })).map(parseTag);
    return tags.some((tag) => tag?.kind === "segment" && tag.name === name) || undefined;
  });
  if (isListed) return;
  const others = await listedAs(context, name);
  const instead = others === undefined ? "" : `, but ${others}`;
  throw unreadable(
    `${store.name}: its list of tags does not have ${segmentTag(name)}, which it has by that name${instead}`,
  );
}

/** A tag of the list that seems to be the one that was written. */
async function listedAs(
  { store, signal }: ProtocolContext,
  name: GenerationName,
): Promise<string | undefined> {
  const id = name.slice(-16);
  return (await store.listTags({ signal })).find((tag) => tag.toLowerCase().includes(id));
}

/** The smallest layer will do. The empty config is no blob of ours: registries have it ready. */
async function checkBlob(context: ProtocolContext, { blobs }: Committed): Promise<void> {
  const [blob] = blobs
    .filter(({ digest, size }) => size > 1 && digest !== EMPTY_CONFIG.digest)
    .sort((a, b) => a.size - b.size);
  if (blob === undefined) return;
  const whole = await readAll(context, blob, undefined);
  if (`sha256:${new Bun.CryptoHasher("sha256").update(whole).digest("hex")}` !== blob.digest) {
    throw unreadable(`${context.store.name}: blob ${blob.digest} comes back as ${whole.length} other bytes`);
  }
  const range = { offset: 1, length: Math.ceil((blob.size - 1) / 2) };
  const part = await readAll(context, blob, range);
  if (part.equals(whole.subarray(range.offset, range.offset + range.length))) return;
  throw unreadable(
    `${context.store.name}: blob ${blob.digest}: the bytes ${range.offset} to ${range.offset + range.length} are others when they are asked for alone`,
  );
}

async function readAll(
  { store, signal }: ProtocolContext,
  { digest, size }: BlobReference,
  range: ByteRange | undefined,
): Promise<Buffer> {
  const stream = await store.readBlob(digest, { range, signal });
  if (stream === undefined)
    throw unreadable(`${store.name}: it took the blob ${digest} and does not have it`);
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of stream) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > size)
      throw unreadable(`${store.name}: blob ${digest} comes back longer than its ${size} bytes`);
  }
  return Buffer.concat(chunks);
}

/** What `look` finds, now or after some waiting. */
async function untilThere<T>(
  { store, host, signal, info }: ProtocolContext,
  look: () => Promise<T | undefined>,
): Promise<T | undefined> {
  let found = await look();
  for (const wait of WAITS_MS) {
    if (found !== undefined) break;
    if (wait === LONG_WAIT_MS) info?.(`waiting for ${store.name} to show what was published`);
    await host.sleep(wait, signal);
    found = await look();
  }
  return found;
}

function unreadable(message: string, cause?: unknown): NixcacheError {
  return new NixcacheError("unreadable", message, {
    hint: "The registry, or a proxy before it, changes or hides what it was given, so nobody can read this cache. Use another one, or try again where it was only slow.",
    ...(cause === undefined ? {} : { cause }),
  });
}

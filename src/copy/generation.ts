/**
 * Writing one generation of another cache: its blobs, then its holds, and its segment last, whose PUT is the commit
 * here too (STORAGE-PROTOCOL, "Publish" steps 2 to 6).
 *
 * gc goes by the time in a tag. A hold of another cache may be older than a week when it comes here, and as long as
 * its segment is not there gc takes it for one that lost its publisher; one that looked before the commit may even
 * delete it afterwards. So for an old generation its holds are written under a name of now as well, with a note of
 * which generation they are of, by which gc spares them. The same is done where the source has lost a hold.
 */
import type { BlobReference } from "../cache/manifests.ts";
import { generationTime } from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import { laterTime } from "../protocol/clock.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { GenerationWriter } from "../protocol/generation.ts";
import { checkReadBack } from "../protocol/read-back.ts";
import { statTag } from "../protocol/tagged.ts";
import type { BlobCopier } from "./blobs.ts";
import type { SourceGeneration, TaggedManifest } from "./source.ts";

const ATTEMPTS = 5;

/** As for a publish: for a moment docker-registry does not know a blob that somebody uploads again. */
const REFUSED_WAIT_MS = 500;

/** gc deletes holds after 7 days: these are still far from that when the segment has followed. */
const YOUNG_MS = 5 * 24 * 3_600_000;

/** Where generations are copied to. */
export interface Destination {
  readonly context: ProtocolContext;
  readonly copier: BlobCopier;
  /** Holds what was copied until its generation is there. */
  readonly keeper: GenerationWriter;
  /** Whether it refuses a manifest that names a missing blob. */
  readonly strict: boolean;
}

/** @throws SourceDamaged when the source lacks a blob; `protocol` when the destination does not keep what it took */
export async function writeGeneration(
  { context, copier, keeper, strict }: Destination,
  generation: SourceGeneration,
): Promise<void> {
  const { store, host, concurrency, signal } = context;
  const { name, segment, holds, unheld, index } = generation;
  const blobs = [...uniqueBlobs([segment, ...holds]), ...unheld];
  const isYoung = laterTime(context) - generationTime(name) < YOUNG_MS;
  const toHold = [...(isYoung ? [] : uniqueBlobs(holds)), ...unheld];
  const ownHolds = new GenerationWriter(context, { holdsFor: name });
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    if (attempt > 0) await host.sleep(REFUSED_WAIT_MS * (1 + host.random()), signal);
    await mapConcurrently(blobs, concurrency, (blob) =>
      copier.copy(blob, blob.digest === index.digest ? index : undefined),
    );
    if (!strict) for (const blob of blobs) await keeper.uploaded(blob);
    for (const blob of toHold) await ownHolds.uploaded(blob);
    const held = (strict || (await keeper.holdAll())) && (await ownHolds.holdAll());
    const missing = held && strict ? [] : await absent(context, blobs);
    if (held && missing.length === 0 && (await commit(context, generation))) return;
    copier.forget(missing.length > 0 ? missing : await absent(context, blobs));
  }
  throw new NixcacheError(
    "protocol",
    `${store.name} refuses ${segment.tag}, although all its blobs are there`,
    {
      hint: "Look for a clean-up policy of the registry that deletes tags beginning with hold-, or try again.",
    },
  );
}

/** False when the store refuses a manifest, or has lost a hold. */
async function commit(
  context: ProtocolContext,
  { name, segment, holds }: SourceGeneration,
): Promise<boolean> {
  for (const hold of holds) if ((await put(context, hold)) === undefined) return false;
  const manifest = await put(context, segment);
  if (manifest === undefined) return false;
  await checkReadBack(context, { name, manifest, blobs: segment.blobs });
  // From now on gc spares the holds; one that looked before the commit may have deleted some.
  return hasHolds(
    context,
    holds.map(({ tag }) => tag),
  );
}

/** The digest that it was stored with; undefined when the store lacks some blob. */
async function put(
  { store, signal }: ProtocolContext,
  { tag, stored }: TaggedManifest,
): Promise<Digest | undefined> {
  const written = await store.writeManifest(tag, stored.mediaType, stored.bytes, { signal });
  return typeof written === "string" ? written : undefined;
}

export async function hasHolds(
  { store, concurrency, signal }: ProtocolContext,
  tags: readonly string[],
): Promise<boolean> {
  const found = await mapConcurrently(tags, concurrency, (tag) => statTag(store, tag, { signal }));
  return !found.includes(undefined);
}

async function absent(
  { store, concurrency, signal }: ProtocolContext,
  blobs: readonly BlobReference[],
): Promise<Digest[]> {
  const sizes = await mapConcurrently(blobs, concurrency, ({ digest }) => store.statBlob(digest, { signal }));
  return blobs.filter((_, i) => sizes[i] === undefined).map(({ digest }) => digest);
}

function uniqueBlobs(manifests: readonly TaggedManifest[]): BlobReference[] {
  return [...new Map(manifests.flatMap(({ blobs }) => blobs.map((blob) => [blob.digest, blob]))).values()];
}

/**
 * Repairing a cache: a segment with damage is replaced by one without the entries concerned, or
 * without the listings and logs where nothing else is damaged, and the root is
 * brought up to date. Nothing that can be served is lost; what was lost already is said aloud.
 */
import { type EntryLine, entryOf, formatLine } from "../cache/entry.ts";
import { blobsOf } from "../cache/manifests.ts";
import { type GenerationName, segmentTag } from "../cache/tags.ts";
import { NixcacheError } from "../errors.ts";
import { publicKeysAmong } from "../nar/signing-key.ts";
import { digestOf } from "../oci/digest.ts";
import { requireClock } from "../protocol/clock.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { endGenerations } from "../protocol/end.ts";
import { fold } from "../protocol/fold.ts";
import { GenerationWriter } from "../protocol/generation.ts";
import type { Segment } from "./segments.ts";
import { lineKey, lineText, type Verification } from "./verify.ts";

export interface Repair {
  /** Generations that were damaged, and what took their place; null where nothing was left. */
  readonly replaced: readonly { readonly name: GenerationName; readonly by: GenerationName | null }[];
  /** Store paths that are in no generation any more. */
  readonly lost: readonly string[];
}

/** @throws `clock`, before anything changes; when the store refuses: what was replaced until then stays replaced. */
export async function repair(context: ProtocolContext, verification: Verification): Promise<Repair> {
  requireClock(context);
  const { segments, bad, mended } = verification;
  const replaced: { name: GenerationName; by: GenerationName | null }[] = [];
  const kept = new Set<string>();
  const lost = new Map<string, string>();
  for (const segment of segments.readable) {
    const whole = withoutBad(segment.lines, bad);
    const lines = whole.map((line) => mended.get(lineText(line)) ?? line);
    for (const { storeHash } of lines) kept.add(storeHash);
    if (isAsItWas(segment, lines)) continue;
    const remaining = new Set(whole);
    for (const line of segment.lines) {
      if (!remaining.has(line)) lost.set(line.storeHash, entryOf(line).info.storePath);
    }
    replaced.push({
      name: segment.name,
      by: lines.length > 0 ? await recommit(context, segment, lines) : null,
    });
  }
  for (const name of segments.unreadable) replaced.push({ name, by: null });
  // Whatever their age: a damaged generation serves nobody, and what was whole in it stands in another one now.
  await endGenerations(
    context,
    replaced.map(({ name }) => name),
    Number.NEGATIVE_INFINITY,
  );
  await fold(context);
  return { replaced, lost: [...lost].filter(([hash]) => !kept.has(hash)).map(([, path]) => path) };
}

function isAsItWas({ lines, broken, record }: Segment, repaired: readonly EntryLine[]): boolean {
  if (broken > 0 || publicKeysAmong(record.keys).length < record.keys.length) return false;
  return repaired.length === lines.length && repaired.every((line, at) => line === lines[at]);
}

/** The lines that are whole, and whose references in the same segment are (rule 3). */
function withoutBad(lines: readonly EntryLine[], bad: ReadonlySet<string>): EntryLine[] {
  const gone = new Set(lines.filter((line) => bad.has(lineKey(line))).map(({ storeHash }) => storeHash));
  let remaining = lines.filter(({ storeHash }) => !gone.has(storeHash));
  for (let before = -1; before !== gone.size; ) {
    before = gone.size;
    for (const line of remaining) {
      if (entryOf(line).info.references.some((reference) => gone.has(reference.slice(0, 32))))
        gone.add(line.storeHash);
    }
    remaining = remaining.filter(({ storeHash }) => !gone.has(storeHash));
  }
  return remaining;
}

async function recommit(
  context: ProtocolContext,
  segment: Segment,
  lines: EntryLine[],
): Promise<GenerationName> {
  const content = digestOf(lines.map(formatLine).join("\n"));
  const keys = segment.record.keys.filter((key) => publicKeysAmong([key]).length > 0);
  const record = { ...segment.record, keys, content, entries: lines.length };
  const writer = new GenerationWriter(context, { revision: record.revision });
  const outcome = await writer.commit(record, lines, blobsOf(lines));
  if ("committed" in outcome) return outcome.committed;
  throw new NixcacheError(
    "corrupt",
    `${segmentTag(segment.name)} of ${context.store.name}: blobs vanish while it is repaired: ${outcome.missing.join(", ")}`,
    { hint: "Run verify --repair again." },
  );
}

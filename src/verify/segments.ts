/** Reading every live segment for itself, whatever the root says: each as far as it can be read. */
import type { EntryLine } from "../cache/entry.ts";
import type { PublishRecord } from "../cache/record.ts";
import { type GenerationName, generationId, parseTag } from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import { publicKeysAmong } from "../nar/signing-key.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { holdOwner } from "../protocol/hold-owner.ts";
import { Malformed } from "../protocol/malformed.ts";
import { readSegment, UnsignedGeneration } from "../protocol/segment.ts";
import type { Finding, FindingKind } from "./finding.ts";

export interface Segment {
  readonly name: GenerationName;
  readonly record: PublishRecord;
  readonly lines: readonly EntryLine[];
  /** How many of its lines are no entries. */
  readonly broken: number;
}

export interface Segments {
  readonly readable: readonly Segment[];
  readonly unreadable: readonly GenerationName[];
  /** Those that a later version of nixcache may read. */
  readonly later: readonly GenerationName[];
  readonly findings: readonly Finding[];
}

/** @throws when the store cannot be asked. What a segment itself lacks is a finding. */
export async function readSegments(context: ProtocolContext): Promise<Segments> {
  const { store, concurrency, signal } = context;
  const tags = (await store.listTags({ signal })).map((tag) => ({ tag, parsed: parseTag(tag) }));
  const dead = new Set(tags.flatMap(({ parsed }) => (parsed?.kind === "dead" ? [parsed.id] : [])));
  const live = new Map<GenerationName, string>();
  for (const { tag, parsed } of tags)
    if (parsed?.kind === "segment" && !dead.has(generationId(parsed.name))) live.set(parsed.name, tag);
  const readable: Segment[] = [];
  const unreadable: GenerationName[] = [];
  const later: GenerationName[] = [];
  const findings: Finding[] = [];
  await mapConcurrently([...live].sort(), concurrency, async ([name, tag]) => {
    try {
      const lines: EntryLine[] = [];
      let broken = 0;
      let first = "";
      // Undefined when it was deleted since the list was made.
      const header = await readSegment(context, name, (line) => lines.push(line), {
        tag,
        broken: ({ message }) => {
          if (broken++ === 0) first = message;
        },
      });
      if (header === undefined) return;
      readable.push({ name, record: header.record, lines, broken });
      if (broken > 0) findings.push(malformed("line-malformed", tag, `${broken} of its lines; ${first}`));
      findings.push(...malformedKeys(header.record, tag));
    } catch (error) {
      if (error instanceof UnsignedGeneration) {
        const detail = "it changes nothing for who gives these keys; nixcache sign signs what is yours";
        findings.push({ kind: "generation-unsigned", subject: tag, detail });
        return;
      }
      if (!(error instanceof NixcacheError && error.code === "corrupt")) throw error;
      const isLater = error instanceof Malformed && error.isLater;
      (isLater ? later : unreadable).push(name);
      findings.push(malformed(isLater ? "segment-later" : "segment-unreadable", tag, error.message));
    }
  });
  for (const { tag, parsed } of tags) {
    if (parsed?.kind !== "hold" || live.has(parsed.name) || dead.has(generationId(parsed.name))) continue;
    if (!live.has((await holdOwner(store, tag, { signal })) ?? "")) {
      findings.push({ kind: "hold-orphan", subject: tag, detail: "gc removes it after 7 days" });
    }
  }
  readable.sort((a, b) => (a.name < b.name ? -1 : 1));
  return { readable, unreadable: unreadable.sort(), later: later.sort(), findings };
}

/** Without a word of the key: it may be a secret one. */
function malformedKeys({ keys }: PublishRecord, tag: string): Finding[] {
  const count = keys.length - publicKeysAmong(keys).length;
  return count === 0 ? [] : [malformed("key-malformed", tag, `${count} of its ${keys.length} keys`)];
}

function malformed(kind: FindingKind, subject: string, detail: string): Finding {
  return { kind, subject, detail };
}

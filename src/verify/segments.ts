/** Reading every live segment for itself, whatever the root says: each as far as it can be read. */
import type { EntryLine } from "../cache/entry.ts";
import type { PublishRecord } from "../cache/record.ts";
import { type GenerationName, generationId, parseTag } from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { holdOwner } from "../protocol/hold-owner.ts";
import { readSegment } from "../protocol/segment.ts";
import type { Finding } from "./finding.ts";

export interface Segment {
  readonly name: GenerationName;
  readonly record: PublishRecord;
  readonly lines: readonly EntryLine[];
}

export interface Segments {
  readonly readable: readonly Segment[];
  readonly unreadable: readonly GenerationName[];
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
  const findings: Finding[] = [];
  await mapConcurrently([...live].sort(), concurrency, async ([name, tag]) => {
    try {
      const lines: EntryLine[] = [];
      // Undefined when it was deleted since the list was made.
      const header = await readSegment(context, name, (line) => lines.push(line), tag);
      if (header) readable.push({ name, record: header.record, lines });
    } catch (error) {
      if (!(error instanceof NixcacheError && error.code === "corrupt")) throw error;
      unreadable.push(name);
      findings.push({ kind: "segment-unreadable", subject: tag, detail: error.message });
    }
  });
  for (const { tag, parsed } of tags) {
    if (parsed?.kind !== "hold" || live.has(parsed.name) || dead.has(generationId(parsed.name))) continue;
    if (!live.has((await holdOwner(store, tag, { signal })) ?? "")) {
      findings.push({ kind: "hold-orphan", subject: tag, detail: "gc removes it after 7 days" });
    }
  }
  readable.sort((a, b) => (a.name < b.name ? -1 : 1));
  return { readable, unreadable: unreadable.sort(), findings };
}

/**
 * Generations made of lines that the index has, restated verbatim: nothing is uploaded but their index layer.
 *
 * They are complete (rule 3) without asking anybody. A generation has a line for every path of its closure that no
 * upstream has, and the index is the union of all of them. So what a line refers to is in the index too, or was an
 * upstream's when the generation that the line is from was published.
 */
import { type EntryLine, formatLine } from "../cache/entry.ts";
import type { IndexReader } from "../cache/index-reader.ts";
import { blobsOf, type ManifestNotes } from "../cache/manifests.ts";
import type { PublishRecord } from "../cache/record.ts";
import type { GenerationName } from "../cache/tags.ts";
import { NixcacheError } from "../errors.ts";
import { parseNarInfo } from "../nar/narinfo.ts";
import { storeHashOf } from "../nar/store-path.ts";
import { digestOf } from "../oci/digest.ts";
import type { ProtocolContext } from "./context.ts";
import { GenerationWriter } from "./generation.ts";

export interface ClosureLines {
  /** In the order of store hashes. */
  readonly lines: readonly EntryLine[];
  /** Store hashes that these refer to and the index does not have. */
  readonly elsewhere: ReadonlySet<string>;
}

/** The lines of everything that these store hashes lead to, themselves included. */
export function closureLines(view: IndexReader, roots: Iterable<string>): ClosureLines {
  const lines = new Map<string, EntryLine>();
  const elsewhere = new Set<string>();
  const open = [...roots];
  for (let hash = open.pop(); hash !== undefined; hash = open.pop()) {
    if (lines.has(hash) || elsewhere.has(hash)) continue;
    const line = view.line(hash);
    if (line === undefined) {
      elsewhere.add(hash);
      continue;
    }
    lines.set(hash, line);
    open.push(...parseNarInfo(line.narinfo, hash).references.map(storeHashOf));
  }
  const sorted = [...lines.values()].sort((a, b) => (a.storeHash < b.storeHash ? -1 : 1));
  return { lines: sorted, elsewhere };
}

/** What a record says beside what follows from its lines. */
export type RestatedOrigin = Omit<PublishRecord, "time" | "keys" | "content" | "entries">;

/** The record of a generation of these lines. Its keys are those that have signed them, as far as the index knows. */
export function restatedRecord(
  view: IndexReader,
  origin: RestatedOrigin,
  lines: readonly EntryLine[],
  now: number,
): PublishRecord {
  const signers = new Set(
    lines.flatMap(({ narinfo }) => [...narinfo.matchAll(SIGNER)].map(([, name]) => name)),
  );
  const keys = new Set(view.generations().flatMap(({ record }) => record.keys));
  return {
    ...origin,
    time: new Date(now).toISOString(),
    keys: [...keys].filter((key) => signers.has(key.slice(0, key.indexOf(":")))).sort(),
    content: digestOf(lines.map(formatLine).join("\n")),
    entries: lines.length,
  };
}

/** The name of the key in each signature of a narinfo. */
const SIGNER = /^Sig: ([^:\n]+):/gm;

/**
 * Commits lines of the index as one generation, without the fold.
 * @param options.after the generation that it succeeds: its name is later than that one's, whatever the clocks
 * @throws `corrupt` when blobs that the index names are gone; what the store throws
 */
export async function restate(
  context: ProtocolContext,
  record: PublishRecord,
  lines: readonly EntryLine[],
  options: Pick<ManifestNotes, "source"> & { readonly after?: GenerationName | undefined } = {},
): Promise<GenerationName> {
  const { after, source } = options;
  const writer = new GenerationWriter(context, { source, revision: record.revision }, after);
  const outcome = await writer.commit(record, lines, blobsOf(lines));
  if ("committed" in outcome) return outcome.committed;
  const more = outcome.missing.length > 1 ? ` and ${outcome.missing.length - 1} more` : "";
  throw new NixcacheError(
    "corrupt",
    `${context.store.name}: its index names blobs that are gone: ${outcome.missing[0]}${more}`,
    { hint: "Run nixcache verify --repair, and publish what it names again." },
  );
}

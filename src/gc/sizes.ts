/** How many bytes a cache has, and what they are for: before a collection and after it. */
import type { IndexReader } from "../cache/index-reader.ts";
import { lineOf } from "../cache/record.ts";
import { generationId } from "../cache/tags.ts";
import type { Holdings } from "./holdings.ts";
import { MAX_PATHS, OutputBlobs } from "./outputs.ts";
import type { Decision } from "./plan.ts";

export interface Sizes {
  /** Bytes of everything that a manifest holds, each blob once: of what lives, what ended, and uploads under way. */
  readonly stored: number;
  /** Of that, what generations hold that were alive before, and that stay alive. */
  readonly before: number;
  readonly after: number;
  /** The largest first. */
  readonly sources: readonly SourceSize[];
  /** The largest first; undefined for a cache with too many paths. */
  readonly outputs?: readonly OutputSize[] | undefined;
}

/** Shared blobs count once within each source and each output, and once in the sums above. */
interface Size {
  readonly before: number;
  readonly after: number;
}

export interface SourceSize extends Size {
  readonly source: string;
  readonly system?: string | undefined;
  readonly selection?: string | undefined;
  /** Generations, and how many of them stay. */
  readonly generations: number;
  readonly staying: number;
  /** Bytes that no other source holds, after. */
  readonly alone: number;
}

export interface OutputSize extends Size {
  /** Names of the source and of the output. */
  readonly source: string;
  readonly output: string;
}

export function measure(view: IndexReader, decisions: readonly Decision[], holdings: Holdings): Sizes {
  const ids = (some: readonly Decision[]) => some.map(({ name }) => generationId(name));
  const staying = decisions.filter(({ ends }) => !ends);
  const after = holdings.count(ids(staying));
  const afterBytes = after.bytes;
  const lines = [...Map.groupBy(decisions, ({ record }) => lineOf(record)).values()];
  const sources = lines.map((line): SourceSize => {
    const { source, system, selection } = (line.at(-1) as Decision).record;
    const stays = line.filter(({ ends }) => !ends);
    for (const id of ids(stays)) after.remove(id);
    const alone = afterBytes - after.bytes;
    for (const id of ids(stays)) after.add(id);
    return {
      source,
      ...(system !== undefined && { system }),
      ...(selection !== undefined && { selection }),
      generations: line.length,
      staying: stays.length,
      before: holdings.bytes(ids(line)),
      after: holdings.bytes(ids(stays)),
      alone,
    };
  });
  return {
    stored: holdings.bytes(holdings.owners),
    before: holdings.bytes(ids(decisions)),
    after: afterBytes,
    sources: sources.sort(largestFirst),
    ...(view.count() <= MAX_PATHS && { outputs: measureOutputs(view, decisions, holdings) }),
  };
}

function measureOutputs(view: IndexReader, decisions: readonly Decision[], holdings: Holdings): OutputSize[] {
  const byOutput = new Map<
    string,
    { source: string; output: string; all: Set<string>; staying: Set<string> }
  >();
  for (const { record, ends } of decisions) {
    for (const [output, path] of Object.entries(record.roots)) {
      const key = JSON.stringify([record.source, record.system ?? null, output]);
      const paths = byOutput.get(key) ?? {
        source: record.source,
        output,
        all: new Set(),
        staying: new Set(),
      };
      byOutput.set(key, paths);
      paths.all.add(path);
      if (!ends) paths.staying.add(path);
    }
  }
  const blobs = new OutputBlobs(view, holdings);
  return [...byOutput.values()]
    .map(({ source, output, all, staying }) => ({
      source,
      output,
      before: holdings.sizeOf(blobs.of([...all])),
      after: holdings.sizeOf(blobs.of([...staying])),
    }))
    .sort(largestFirst);
}

function largestFirst(a: Size, b: Size): number {
  return b.after - a.after || b.before - a.before;
}

/** Who published what and when, and what each generation added to the one before it. */
import type { Totals } from "../cache/catalog.ts";
import type { Generation } from "../cache/index-layer.ts";
import { lineOf } from "../cache/record.ts";
import type { GenerationName } from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { readContentsOrWarn } from "./contents.ts";
import { predecessors } from "./line.ts";

/** Lines of succession that are read at once, each with the hashes of one or two generations in memory. */
const LINES_AT_ONCE = 4;

export interface HistoryItem extends Generation {
  /** What it succeeds, if that lives. */
  readonly before: GenerationName | undefined;
  /**
   * What it has that the one before has not, or all of it where there is none before: paths, their NARs, and the
   * compressed files. Undefined where one of the two cannot be read.
   */
  readonly added: Totals | undefined;
}

/**
 * The newest `limit` generations, the newest first; reads those, and what they succeed.
 * @param generations all that live, the oldest first
 */
export async function readHistory(
  context: ProtocolContext,
  generations: readonly Generation[],
  limit: number,
): Promise<HistoryItem[]> {
  const before = predecessors(generations);
  const shown = generations.slice(Math.max(0, generations.length - limit));
  const added = new Map<GenerationName, Totals | undefined>();
  const lines = Map.groupBy(shown, ({ record }) => lineOf(record));
  await mapConcurrently([...lines.values()], LINES_AT_ONCE, async (line) => {
    const reader = new LineReader(context);
    for (const generation of line)
      added.set(generation.name, await reader.added(generation, before.get(generation.name)));
  });
  return shown.toReversed().map((generation) => ({
    ...generation,
    before: before.get(generation.name)?.name,
    added: added.get(generation.name),
  }));
}

/** Hashes of paths, and names of NAR files. */
interface Held {
  readonly of: GenerationName;
  readonly hashes: Set<string>;
  readonly files: Set<string>;
}

/** Goes through generations of one line, the oldest first, and reads each once. */
class LineReader {
  readonly #context: ProtocolContext;
  /** Of the generations looked at last: what comes next succeeds one of them, or is read. */
  #known: readonly Held[] = [];

  constructor(context: ProtocolContext) {
    this.#context = context;
  }

  async added(generation: Generation, before: Generation | undefined): Promise<Totals | undefined> {
    if (before?.record.content === generation.record.content) {
      const same = this.#known.find(({ of }) => of === before.name);
      if (same) this.#known = [{ ...same, of: generation.name }, same];
      return { paths: 0, narSize: 0, fileSize: 0 };
    }
    const base = before && (await this.#held(before.name));
    if (before !== undefined && base === undefined) return undefined;
    const read = await this.#read(generation.name, base);
    if (read === undefined) return undefined;
    this.#known = base === undefined ? [read.held] : [read.held, base];
    return read.added;
  }

  async #held(name: GenerationName): Promise<Held | undefined> {
    return this.#known.find(({ of }) => of === name) ?? (await this.#read(name, undefined))?.held;
  }

  /** Undefined when it cannot be read. */
  async #read(
    name: GenerationName,
    base: Held | undefined,
  ): Promise<{ held: Held; added: Totals } | undefined> {
    const held: Held = { of: name, hashes: new Set(), files: new Set() };
    const added = { paths: 0, narSize: 0, fileSize: 0 };
    const consequence = "what was added is not known";
    const isRead = await readContentsOrWarn(this.#context, name, consequence, (path) => {
      const { hash, narSize, fileSize, file } = path;
      if (!base?.hashes.has(hash)) {
        added.paths++;
        added.narSize += narSize;
      }
      // A NAR that two paths share is stored once.
      if (!base?.files.has(file) && !held.files.has(file)) added.fileSize += fileSize ?? 0;
      held.hashes.add(hash);
      held.files.add(file);
    });
    return isRead ? { held, added } : undefined;
  }
}

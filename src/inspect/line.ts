/** What a generation succeeds: the one before it of the same source, system and selection. */
import type { Generation } from "../cache/index-layer.ts";
import { lineOf } from "../cache/record.ts";
import type { GenerationName } from "../cache/tags.ts";

/**
 * By name, for those that have one. Before a whole generation is the newest whole one: the parts of its own run, which
 * `--watch` commits on the way, would hide what the run has added.
 * @param generations the oldest first
 */
export function predecessors(generations: readonly Generation[]): Map<GenerationName, Generation> {
  const before = new Map<GenerationName, Generation>();
  const newest = new Map<string, Generation>();
  const newestWhole = new Map<string, Generation>();
  for (const generation of generations) {
    const line = lineOf(generation.record);
    const found = (generation.record.partial ? newest : newestWhole).get(line);
    if (found !== undefined) before.set(generation.name, found);
    newest.set(line, generation);
    if (!generation.record.partial) newestWhole.set(line, generation);
  }
  return before;
}

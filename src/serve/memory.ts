/**
 * What the bodies under way may keep in memory together (rule 6).
 *
 * What has come for a client that does not read waits in memory. So a NAR is asked for in windows, each taken out of
 * one budget and given back as it goes to the client: few clients get large windows, which cost few requests, and
 * any number of slow ones stay within the budget and a little for each.
 */
import type { ReadMemory } from "../protocol/blob-range.ts";

const BUDGET_BYTES = 16 * 1024 * 1024;

/** A quarter of what is free goes to one window, between these bounds. Less would be all requests and no bytes. */
const MAX_WINDOW_BYTES = 3 * 1024 * 1024;
const MIN_WINDOW_BYTES = 64 * 1024;

/** Nothing is fetched ahead out of this much: it is for those who wait for their next byte. */
const RESERVED_BYTES = 4 * 1024 * 1024;

/**
 * The engine's collector counts bodies from the network late: left to itself, 200 clients took 400 MiB where they
 * hold 50. A collection after so many bytes takes some milliseconds, a sixth of what a large NAR costs: it is left out
 * while the process is small.
 */
const COLLECT_AFTER_BYTES = 16 * 1024 * 1024;
const SMALL_PROCESS_BYTES = 96 * 1024 * 1024;

export class MemoryBudget implements ReadMemory {
  #free = BUDGET_BYTES;
  #sinceCollection = 0;

  /** @param collect runs the engine's garbage collector */
  constructor(readonly collect: () => void = collectIfLarge) {}

  take(wanted: number): number {
    const share = Math.min(MAX_WINDOW_BYTES, Math.max(MIN_WINDOW_BYTES, Math.floor(this.#free / 4)));
    const taken = Math.min(wanted, share);
    this.#free -= taken;
    return taken;
  }

  takeAhead(wanted: number): number {
    return this.#free > RESERVED_BYTES ? this.take(wanted) : 0;
  }

  giveBack(taken: number): void {
    this.#free += taken;
  }

  handedOn(bytes: number): void {
    this.#sinceCollection += bytes;
    if (this.#sinceCollection < COLLECT_AFTER_BYTES) return;
    this.#sinceCollection = 0;
    this.collect();
  }
}

function collectIfLarge(): void {
  if (process.memoryUsage.rss() > SMALL_PROCESS_BYTES) Bun.gc(true);
}

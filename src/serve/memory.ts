/**
 * What the bodies under way may keep in memory together (rule 6).
 *
 * A body that nobody reads yet is buffered by the network stack up to what was asked for. So a NAR is asked for in
 * windows, each taken out of one budget and given back when it has gone to the client: few clients get large
 * windows, which cost few requests, and any number of slow ones stay within the budget and a little for each.
 */

const BUDGET_BYTES = 32 * 1024 * 1024;

/** A quarter of what is free goes to one window, between these bounds. Less would be all requests and no bytes. */
const MAX_WINDOW_BYTES = 8 * 1024 * 1024;
const MIN_WINDOW_BYTES = 64 * 1024;

export class MemoryBudget {
  #free = BUDGET_BYTES;

  /** A window of at most `wanted` bytes, to be given back. */
  take(wanted: number): number {
    const share = Math.min(MAX_WINDOW_BYTES, Math.max(MIN_WINDOW_BYTES, Math.floor(this.#free / 4)));
    const taken = Math.min(wanted, share);
    this.#free -= taken;
    return taken;
  }

  giveBack(taken: number): void {
    this.#free += taken;
  }
}

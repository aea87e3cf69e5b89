/** Whether the names and patterns that a person gave have matched anything. */
import type { PathPattern } from "./pattern.ts";
import type { WalkEvent } from "./walk.ts";

export class Matches {
  readonly #open: Set<PathPattern>;
  readonly #selectors = new Set<number>();

  constructor(patterns: readonly PathPattern[]) {
    this.#open = new Set(patterns);
  }

  see(event: WalkEvent): void {
    const { kind, path } = event;
    if (kind === "begin" || (kind === "names" && (event.count === 0 || !event.isEnd))) return;
    this.#selectors.add(event.selector);
    if (kind === "names") return;
    // What is below anything else was not looked at, so a pattern that leads there may have meant it.
    const isWhole = kind === "derivation" || kind === "program";
    for (const pattern of this.#open) {
      if (isWhole ? pattern.means(path) : pattern.reaches(path)) this.#open.delete(pattern);
    }
  }

  has(pattern: PathPattern): boolean {
    return !this.#open.has(pattern);
  }

  /** By its index. */
  hasSelector(index: number): boolean {
    return this.#selectors.has(index);
  }
}

/**
 * One walk in as many evaluations as the machine's memory wants: Nix gives nothing back while it evaluates, and eight
 * hosts take some 4 GB.
 *
 * An evaluation that has used its share is ended where it comes to another attribute, and a fresh one goes on from
 * there. Where a set has many names, several evaluations share them: one that is free takes the later half of what the
 * one with the most has before it. What they say is put together in the order of the walk, so it is what one
 * evaluation would have said.
 */
import { comparePlaces, contains, type Place, wholeBefore } from "./place.ts";
import type { WalkEvent } from "./walk.ts";

export interface MemoryBound {
  /** Bytes, for all evaluations together. */
  readonly limit: number;
  /** Bytes that a process holds now; undefined where nobody knows. */
  used(pid: number): number | undefined;
}

export interface Evaluated {
  /** The lines of Nix's error; empty when there was none. */
  readonly error: readonly string[];
  /** It was ended from outside, as for want of memory: the signal. */
  readonly killed?: string;
}

/**
 * Walks on behind `after`.
 *
 * @param stop ends the evaluation
 */
export type Evaluate = (
  after: Place | null,
  listener: { onStart(pid: number): void; onEvent(event: WalkEvent): void; readonly stop: AbortSignal },
) => Promise<Evaluated>;

export interface EvaluationsOptions {
  /** Evaluations at once, at most. */
  readonly processes: number;
  readonly memory: MemoryBound;
  /** Of how many names of a set half is worth an evaluation of its own. By selector. */
  worth(selector: number): number;
  /** What to throw when an evaluation has ended by what no attribute is to blame for. */
  failure(ended: Evaluated): Error;
}

/** In the order of the walk. What several evaluations come through is said by each of them. */
export type Step = WalkEvent | (Place & { readonly kind: "broken"; readonly error: readonly string[] });

export async function evaluateAll(evaluate: Evaluate, options: EvaluationsOptions): Promise<Step[]> {
  const all = new Evaluations(evaluate, options);
  return await all.run();
}

/** A part of the walk. */
interface Range {
  after: Place | null;
  /** Another part begins there. */
  before: Place | null;
  /** Places of one set that are not begun, in their order. */
  pending: readonly Place[];
  readonly steps: Step[];
}

/** One process. */
interface Run {
  readonly range: Range;
  readonly stop: AbortController;
  pid: number | undefined;
  /** What it came to last. */
  begun: Place | undefined;
  /** What is done before that, if anything is. */
  done: Place | undefined;
  last: WalkEvent | undefined;
  /** Why it was told to stop. */
  ended: "over" | "memory" | undefined;
}

class Evaluations {
  readonly #evaluate: Evaluate;
  readonly #options: EvaluationsOptions;
  /** In the order of the walk. */
  readonly #ranges: Range[] = [{ after: null, before: null, pending: [], steps: [] }];
  readonly #waiting: Range[] = [...this.#ranges];
  readonly #running = new Set<Run>();
  readonly #end = Promise.withResolvers<void>();
  #processes: number;
  #failed: { readonly error: unknown } | undefined;

  constructor(evaluate: Evaluate, options: EvaluationsOptions) {
    this.#evaluate = evaluate;
    this.#options = options;
    this.#processes = Math.max(1, options.processes);
  }

  async run(): Promise<Step[]> {
    this.#fill();
    await this.#end.promise;
    if (this.#failed) throw this.#failed.error;
    return this.#ranges.flatMap(({ steps }) => steps);
  }

  /** Starts as many as there may be. */
  #fill(): void {
    while (!this.#failed && this.#running.size < this.#processes) {
      const range = this.#waiting.shift() ?? this.#halve();
      if (range === undefined) break;
      void this.#start(range);
    }
    if (this.#running.size === 0) this.#end.resolve();
  }

  async #start(range: Range): Promise<void> {
    const run: Run = {
      ...{ range, stop: new AbortController(), pid: undefined },
      ...{ begun: undefined, done: undefined, last: undefined, ended: undefined },
    };
    this.#running.add(run);
    let goesOn = false;
    try {
      goesOn = await this.#follow(run);
    } catch (error) {
      this.#failed ??= { error };
      for (const other of this.#running) other.stop.abort();
    }
    this.#running.delete(run);
    if (goesOn) this.#waiting.unshift(range);
    this.#fill();
  }

  /** The later half of what the range has before it that has most of it. */
  #halve(): Range | undefined {
    let victim: Range | undefined;
    for (const range of this.#ranges) {
      if (range.pending.length > (victim?.pending.length ?? 1)) victim = range;
    }
    const [first] = victim?.pending ?? [];
    if (victim === undefined || first === undefined) return undefined;
    if (victim.pending.length < this.#options.worth(first.selector)) return undefined;
    const middle = Math.ceil(victim.pending.length / 2);
    const [after = null, begin = null] = victim.pending.slice(middle - 1, middle + 1);
    const range: Range = { after, before: victim.before, pending: victim.pending.slice(middle), steps: [] };
    victim.before = begin;
    victim.pending = victim.pending.slice(0, middle);
    this.#ranges.splice(this.#ranges.indexOf(victim) + 1, 0, range);
    return range;
  }

  /** @returns whether there is more of its range */
  async #follow(run: Run): Promise<boolean> {
    const { range } = run;
    const result = await this.#evaluate(range.after, {
      stop: run.stop.signal,
      onStart: (pid) => {
        run.pid = pid;
      },
      onEvent: (event) => this.#see(run, event),
    });
    if (this.#failed || run.ended === "over") return false;
    if (run.ended === "memory") return true;
    if (result.killed !== undefined) return this.#afterKill(run, result);
    if (result.error.length === 0) return false;
    const culprit = culpritOf(run.last);
    // Going on behind a place must not lead to it again.
    if (culprit === undefined || (range.after !== null && comparePlaces(culprit, range.after) === 0)) {
      throw this.#options.failure(result);
    }
    range.steps.push({ ...culprit, kind: "broken", error: result.error });
    range.after = culprit;
    return true;
  }

  /** Mostly since memory ran out: it goes on where something can be done in another way. */
  #afterKill({ range, done }: Run, result: Evaluated): boolean {
    if (done === undefined && this.#running.size === 1) throw this.#options.failure(result);
    this.#processes = Math.max(1, this.#running.size - 1);
    range.after = done ?? range.after;
    return true;
  }

  #see(run: Run, event: WalkEvent): void {
    const { range } = run;
    if (run.ended !== undefined || this.#failed) return;
    if (range.before !== null && comparePlaces(event, range.before) >= 0) {
      this.#stop(run, "over");
      return;
    }
    if (event.kind === "begin") {
      if (run.begun !== undefined && !contains(run.begun, event)) {
        const isFirst = run.done === undefined;
        run.done = wholeBefore(run.begun, event);
        if (this.#isOver(run, isFirst)) {
          range.after = run.done;
          this.#stop(run, "memory");
          return;
        }
      }
      run.begun = event;
      range.pending = range.pending.filter((place) => comparePlaces(place, event) > 0);
    }
    range.steps.push(event);
    run.last = event;
    if (event.kind === "names") this.#offer(range, event);
  }

  #stop(run: Run, why: "over" | "memory"): void {
    run.ended = why;
    run.stop.abort();
  }

  /** @param isFirst whether it has done no more than one attribute */
  #isOver({ pid }: Run, isFirst: boolean): boolean {
    const { limit, used } = this.#options.memory;
    const bytes = pid === undefined ? undefined : used(pid);
    if (bytes === undefined || bytes <= limit / this.#running.size) return false;
    // As many as that will not do when one attribute takes so much.
    if (isFirst) this.#processes = Math.max(1, Math.min(this.#processes, Math.floor(limit / bytes)));
    return true;
  }

  /** Says that others may take some of the names of a set. */
  #offer(range: Range, { selector, path, names }: Extract<WalkEvent, { kind: "names" }>): void {
    const { after, before } = range;
    const places = names
      .map((name) => ({ selector, path: [...path, name] }))
      .filter((place) => after === null || comparePlaces(place, after) > 0)
      .filter((place) => before === null || comparePlaces(place, before) < 0);
    if (places.length <= 2 * this.#options.worth(selector)) return;
    range.pending = places;
    this.#fill();
  }
}

/**
 * What ended an evaluation: where it was, or when all was said of that, what it is in. So it is where a name further on
 * is no UTF-8, which newer versions of Nix cannot say.
 */
function culpritOf(last: WalkEvent | undefined): Place | undefined {
  if (last === undefined) return undefined;
  const { selector, path } = last;
  const isThere = last.kind === "begin" || last.kind === "names";
  return { selector, path: isThere ? path : path.slice(0, -1) };
}

/**
 * Which generations are over. Pure: from publish records, tags and the clock alone, the same on every machine.
 *
 * A line is what succeeds itself: one source, system and selection (`sameLine`). What lives: the newest of each
 * line, everything younger than the retention, and pins (`pins.ts`). Bare paths have no newest: each stands for itself.
 * What was adopted from nixcache-oci is succeeded by whatever a repository publishes for good after it.
 */
import type { Generation } from "../cache/index-layer.ts";
import { pinName, pinsOf } from "../cache/pin.ts";
import { lineOf, PATHS_SOURCE, type PublishRecord, V1_SOURCE } from "../cache/record.ts";
import { type GenerationName, generationId, generationTime, segmentTag } from "../cache/tags.ts";
import { CLOCKS_APART_MS } from "../protocol/clock.ts";
import { MIN_AGE_MS } from "../protocol/end.ts";
import type { Holdings } from "./holdings.ts";
import { judgePin } from "./pins.ts";
import { days, ends, stays, staysForItsAge, type Verdict } from "./verdict.ts";

export interface Policy {
  /** Younger generations live, whatever they are. */
  readonly retentionMs: number;
  /** How many of each line live beside what is young; at least 1. */
  readonly keepLast: number;
  /** Patterns of branches whose newest generations live; empty for all. Others live for the retention. */
  readonly keepBranches: readonly string[];
  /** Patterns of branches whose generations end whatever their age, except those that `keepBranches` names. */
  readonly dropBranches: readonly string[];
  /** What the blobs of all that lives may have together, in bytes; more than that ends the oldest. */
  readonly maxBytes?: number | undefined;
}

export interface Decision extends Generation, Verdict {}

export interface Plan {
  /** One for each generation, the oldest first. */
  readonly decisions: readonly Decision[];
  /** By how many bytes what lives is too large, although all that may end has ended. */
  readonly excessBytes: number;
}

/**
 * @param generations all that are alive
 * @param holdings which blobs they name; read only where the policy has `maxBytes`
 */
export function planGc(
  generations: readonly Generation[],
  policy: Policy,
  now: number,
  holdings?: Holdings,
): Plan {
  const oldestFirst = [...generations].sort((a, b) => (a.name < b.name ? -1 : 1));
  const judge = new Judge(policy, now);
  const judged = judgeAll(oldestFirst, judge, now);
  // Whoever named one ahead of now had a wrong clock, so which is newer is not known: nothing ends for it alone.
  const past = oldestFirst.filter(({ name }) => generationTime(name) - now <= CLOCKS_APART_MS);
  const amongPast = past.length < oldestFirst.length ? judgeAll(past, judge, now) : judged;
  const outliving = new Set<GenerationName>();
  const decisions = oldestFirst.map((generation): Decision => {
    const { name } = generation;
    const all = judged.get(name) as Judged;
    const verdicts = [all, amongPast.get(name) ?? all];
    if (verdicts.some(({ outlivesSize }) => outlivesSize)) outliving.add(name);
    return { ...generation, ...(verdicts.find(({ verdict }) => !verdict.ends) ?? all).verdict };
  });
  if (policy.maxBytes === undefined || holdings === undefined) return { decisions, excessBytes: 0 };
  return shrink(decisions, policy.maxBytes, holdings, ({ name }) => outliving.has(name));
}

interface Judged {
  readonly verdict: Verdict;
  /** Whether it stays however large the cache is. */
  readonly outlivesSize: boolean;
}

/** @param generations the oldest first */
function judgeAll(
  generations: readonly Generation[],
  judge: Judge,
  now: number,
): Map<GenerationName, Judged> {
  const places = placesInLines(generations, (record) => judge.replacesV1(record));
  const pinned = new Map(
    pinsOf(generations)
      .values()
      .flatMap((pin) => judgePin(pin, now)),
  );
  return new Map(
    generations.map((generation) => {
      const { name } = generation;
      const place = places.get(name) as Place;
      const verdict = pinned.get(name) ?? judge.decide(generation, place);
      return [name, { verdict, outlivesSize: judge.outlivesSize({ ...generation, ...verdict }, place) }];
    }),
  );
}

/** Where a generation stands in its line. */
interface Place {
  /** 0 for the newest, 1 for the one before; undefined for a partial one in a line that has whole ones. */
  readonly rank: number | undefined;
  /** The newest that succeeds it, if one does: for a partial one a whole one. */
  readonly successor: GenerationName | undefined;
}

/**
 * @param generations the oldest first
 * @param replacesV1 whether a generation succeeds the cache of nixcache-oci
 */
function placesInLines(
  generations: readonly Generation[],
  replacesV1: (record: PublishRecord) => boolean,
): Map<GenerationName, Place> {
  const own = generations.findLast(({ record }) => replacesV1(record))?.name;
  const lines = Map.groupBy(generations, ({ record }) => lineOf(record));
  const places = new Map<GenerationName, Place>();
  for (const line of lines.values()) {
    const whole = line.filter(({ record }) => !record.partial);
    const ranked = (whole.length > 0 ? whole : line).map(({ name }) => name).reverse();
    const isV1 = line[0]?.record.source === V1_SOURCE;
    if (isV1 && own !== undefined && own > (ranked[0] ?? "")) ranked.unshift(own);
    const [newest] = ranked;
    for (const { name } of line) {
      const rank = ranked.indexOf(name);
      const isSucceeded = newest !== undefined && newest > name;
      places.set(name, {
        rank: rank === -1 ? undefined : rank,
        successor: isSucceeded ? newest : undefined,
      });
    }
  }
  return places;
}

class Judge {
  readonly #policy: Policy;
  readonly #now: number;
  readonly #isKept: (branch: string) => string | undefined;
  readonly #isDropped: (branch: string) => string | undefined;

  constructor(policy: Policy, now: number) {
    this.#policy = policy;
    this.#now = now;
    this.#isKept = matcher(policy.keepBranches);
    this.#isDropped = matcher(policy.dropBranches);
  }

  decide({ name, record }: Generation, { rank, successor }: Place): Verdict {
    const { retentionMs, keepLast } = this.#policy;
    const { source, branch, partial } = record;
    const age = this.#now - generationTime(name);
    if (age < MIN_AGE_MS) return staysForItsAge();
    const dropped = this.#droppedBy(branch);
    if (dropped !== undefined)
      return ends("drop-branch", `--drop-branch ${dropped} names its branch ${branch}`);
    if (partial && rank === undefined && successor !== undefined)
      return ends("partial", `a part of a run, and the whole ${segmentTag(successor)} came after it`);
    const lives = source !== PATHS_SOURCE && this.#livesOn(branch);
    if (lives && rank === 0) return stays("newest", "the newest of its source, system and outputs");
    if (lives && rank !== undefined && rank < keepLast) return stays("last", `one of the last ${keepLast}`);
    if (age < retentionMs) return stays("retention", `younger than ${days(retentionMs)}`);
    return ends(
      "age",
      `older than ${days(retentionMs)}, and ${this.#whyNotNewest(record, lives, successor)}`,
    );
  }

  /** Whether it stays however large the cache is. */
  outlivesSize({ rule, record }: Decision, { rank }: Place): boolean {
    if (rule === "young" || rule === "pin") return true;
    return record.source !== PATHS_SOURCE && rank === 0 && this.#livesOn(record.branch);
  }

  /** Whether a generation is a repository's, whole, and of a branch whose newest lives for ever. */
  replacesV1(record: PublishRecord): boolean {
    const { source, branch, partial } = record;
    const isOwn = source !== V1_SOURCE && source !== PATHS_SOURCE && pinName(record) === undefined;
    return isOwn && !partial && this.#livesOn(branch) && this.#droppedBy(branch) === undefined;
  }

  /** Whether the newest of a branch lives for ever; what has no branch is on none that could be gone. */
  #livesOn(branch: string | undefined): boolean {
    if (branch === undefined || this.#isKept(branch) !== undefined) return true;
    return this.#policy.keepBranches.length === 0;
  }

  #droppedBy(branch: string | undefined): string | undefined {
    if (branch === undefined || this.#isKept(branch) !== undefined) return undefined;
    return this.#isDropped(branch);
  }

  #whyNotNewest(
    { source, branch }: Generation["record"],
    lives: boolean,
    successor: GenerationName | undefined,
  ): string {
    if (source === PATHS_SOURCE) return "bare paths live no longer";
    if (!lives) return `no --keep-branch names its branch ${branch}`;
    return successor === undefined
      ? "it is a part of a run that did not come to its end"
      : `${segmentTag(successor)} succeeded it`;
  }
}

/** Ends the oldest that may end until the rest fits. */
function shrink(
  decisions: readonly Decision[],
  maxBytes: number,
  holdings: Holdings,
  outlives: (decision: Decision) => boolean,
): Plan {
  const staying = holdings.count(decisions.filter(({ ends }) => !ends).map(({ name }) => generationId(name)));
  const reason = "the oldest that may end while more than --max-size was alive";
  const shrunk = decisions.map((decision): Decision => {
    if (decision.ends || staying.bytes <= maxBytes || outlives(decision)) return decision;
    staying.remove(generationId(decision.name));
    return { ...decision, ...ends("max-size", reason) };
  });
  return { decisions: shrunk, excessBytes: Math.max(0, staying.bytes - maxBytes) };
}

/** The first pattern that a branch matches, as GitHub's filters do: `*` stops at a slash, `**` does not. */
function matcher(patterns: readonly string[]): (branch: string) => string | undefined {
  const globs = patterns.map((pattern) => ({ pattern, glob: new Bun.Glob(pattern) }));
  return (branch) => globs.find(({ glob }) => glob.match(branch))?.pattern;
}

/** The patterns of `keepBranches` that name no branch which is alive, and whether that leaves none that is kept. */
export function unmatchedBranches(
  generations: readonly Generation[],
  { keepBranches }: Policy,
): { readonly patterns: readonly string[]; readonly isAll: boolean } {
  const branches = new Set(generations.flatMap(({ record }) => record.branch ?? []));
  const patterns = keepBranches.filter(
    (pattern) => ![...branches].some((branch) => matcher([pattern])(branch)),
  );
  return {
    patterns,
    isAll: branches.size > 0 && patterns.length > 0 && patterns.length === keepBranches.length,
  };
}

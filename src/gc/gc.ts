/**
 * Collecting garbage: decides which generations are over, ends them, and frees what ended more than a day ago
 * (STORAGE-PROTOCOL, "gc"). Needs no Nix, builds nothing, and works from any machine.
 */
import type { Generation } from "../cache/index-layer.ts";
import { blobsOf } from "../cache/manifests.ts";
import { type GenerationName, generationId } from "../cache/tags.ts";
import { NixcacheError, preview } from "../errors.ts";
import type { CollectedBlobs } from "../oci/store.ts";
import { type Adoption, adoptV1 } from "../protocol/adopt.ts";
import { earlierTime, requireClock, warnOfClocks } from "../protocol/clock.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { endGenerations, MIN_AGE_MS, type Sweep, sweep } from "../protocol/end.ts";
import { refresh } from "../protocol/refresh.ts";
import type { Upstream } from "../upstream/client.ts";
import { type Current, type CurrentOutputs, commitCurrent, currentGeneration } from "./current.ts";
import { readHoldings } from "./holdings.ts";
import { type Decision, type Policy, planGc, unmatchedBranches } from "./plan.ts";
import { measure, type Sizes } from "./sizes.ts";
import { judgeUncounted, readUncounted } from "./uncounted.ts";

export interface GcReport {
  /** One for each generation that was alive, the oldest first; those that do not count come last. */
  readonly decisions: readonly Decision[];
  /** Bytes by which what lives is over `maxBytes`, although all that may end has ended. */
  readonly excessBytes: number;
  readonly sizes: Sizes;
  /** The cache of nixcache-oci that was here before, where this run was the first. */
  readonly adopted?: Adoption;
  /** What was freed. Undefined in a dry run. */
  readonly freed?: Freed;
  /** What became of the current outputs that were to be taken as the newest generation. */
  readonly current?: CurrentReport;
}

export interface CurrentReport {
  /** In a dry run under the name that it has in the decisions. Null when none was made. */
  readonly generation: GenerationName | null;
  /** Whether the newest generation of its line says the same already. */
  readonly unchanged: boolean;
  /** Of outputs. */
  readonly count: number;
  /** Outputs that are not in the cache. */
  readonly lacking: Current["lacking"];
}

export interface Freed {
  /** Generations that a run more than a day ago had ended and that are gone now, and holds without one. */
  readonly gone: number;
  /** Bytes that nothing names any more; when a registry gives them back is up to it. */
  readonly bytes: number;
  /** Generations that ended and are deleted by a run 26 hours after that. */
  readonly waiting: number;
  readonly refused: Sweep["refused"];
  /** What was removed, in a layout. */
  readonly collected?: CollectedBlobs;
}

export interface GcOptions {
  /** Changes nothing. */
  readonly dryRun?: boolean;
  /** Asked for what a cache of nixcache-oci lacks, when it is adopted. */
  readonly upstreams?: readonly Upstream[];
  /** Outputs that count as the newest generation of their line, as far as the cache has them. */
  readonly current?: CurrentOutputs | undefined;
}

/** @throws when the cache cannot be read or written; `clock`, before anything changes */
export async function collectGarbage(
  context: ProtocolContext,
  policy: Policy,
  { dryRun = false, upstreams = [], current: outputs }: GcOptions = {},
): Promise<GcReport> {
  const { store, database, signal } = context;
  await refresh(context, { list: true });
  checkBranches(database.view.generations(), policy, context);
  if (!dryRun) requireClock(context);
  warnOfClocks(context);
  // First: what nothing names yet would be removed.
  const adopted = dryRun ? undefined : await adoptV1(context, upstreams);
  const current = outputs && currentGeneration(context, outputs);
  const proposed = dryRun && !current?.isUnchanged ? current?.generation : undefined;
  const committed = current && !dryRun && (await commitCurrent(context, current, outputs.repository));
  const added = committed || proposed;
  const tags = await store.listTags({ signal });
  const holdings = await readHoldings(context, tags);
  if (added && current) holdings.add(generationId(added.name), blobsOf(current.lines));
  const generations = withGeneration(database.view.generations(), added);
  const plan = planGc(generations, policy, earlierTime(context), holdings);
  const uncounted = judgeUncounted(await readUncounted(context), generations, policy, earlierTime(context));
  const decisions = [...plan.decisions, ...uncounted];
  // Before anything changes: afterwards the index no longer has what ended.
  const sizes = measure(database.view, decisions, holdings);
  const report: GcReport = {
    ...plan,
    decisions,
    sizes,
    ...(current && {
      current: {
        generation: added?.name ?? null,
        unchanged: current.isUnchanged,
        count: outputs.outputs.length,
        lacking: current.lacking,
      },
    }),
  };
  if (dryRun) return report;

  const ending = decisions.filter(({ ends }) => ends);
  const atLast = ending.filter(({ last }) => last).map(({ name }) => name);
  await endGenerations(
    context,
    ending.map(({ name }) => name),
    MIN_AGE_MS,
    new Set(atLast),
  );
  const { gone, waiting, refused } = await sweep(context);
  const collected = await store.collectBlobs?.({ signal });
  const left = new Set(holdings.owners).difference(new Set(gone));
  return {
    ...report,
    ...(adopted && { adopted }),
    freed: {
      gone: gone.length,
      bytes: holdings.bytes(holdings.owners) - holdings.bytes(left),
      waiting,
      refused,
      ...(collected && { collected }),
    },
  };
}

/** A mistyped branch to keep must not end all others. @throws `absent` when none of those that shall be kept is there */
function checkBranches(generations: readonly Generation[], policy: Policy, { warn }: ProtocolContext): void {
  const { patterns, isAll } = unmatchedBranches(generations, policy);
  const named = patterns.map((pattern) => preview(pattern)).join(", ");
  if (isAll) {
    throw new NixcacheError("absent", `--keep-branch ${named}: nothing in the cache is of such a branch`, {
      hint: "Correct the pattern or leave it out: nothing was ended, as the newest of every branch would have been.",
    });
  }
  if (patterns.length > 0) warn(`--keep-branch ${named}: nothing in the cache is of such a branch`);
}

/** The list may not show yet what was committed a moment ago. */
function withGeneration(generations: Generation[], added: Generation | undefined): Generation[] {
  const isKnown = added === undefined || generations.some(({ name }) => name === added.name);
  return isKnown ? generations : [...generations, added];
}

/**
 * Collecting garbage: decides which generations are over, ends them, and frees what ended more than a day ago
 * (STORAGE-PROTOCOL, "gc"). Needs no Nix, builds nothing, and works from any machine.
 */
import type { CollectedBlobs } from "../oci/store.ts";
import { type Adoption, adoptV1 } from "../protocol/adopt.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { endGenerations, MIN_AGE_MS, type Sweep, sweep } from "../protocol/end.ts";
import { refresh } from "../protocol/refresh.ts";
import type { Upstream } from "../upstream/client.ts";
import { readHoldings } from "./holdings.ts";
import { type Decision, type Policy, planGc } from "./plan.ts";
import { measure, type Sizes } from "./sizes.ts";

export interface GcReport {
  /** One for each generation that was alive, the oldest first. */
  readonly decisions: readonly Decision[];
  /** Bytes by which what lives is over `maxBytes`, although all that may end has ended. */
  readonly excessBytes: number;
  readonly sizes: Sizes;
  /** The cache of nixcache-oci that was here before, where this run was the first. */
  readonly adopted?: Adoption;
  /** What was freed. Undefined in a dry run. */
  readonly freed?: Freed;
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

/**
 * @param options.dryRun changes nothing
 * @param options.upstreams asked for what a cache of nixcache-oci lacks, when it is adopted
 * @throws when the cache cannot be read or written
 */
export async function collectGarbage(
  context: ProtocolContext,
  policy: Policy,
  { dryRun = false, upstreams = [] }: { dryRun?: boolean; upstreams?: readonly Upstream[] } = {},
): Promise<GcReport> {
  const { store, host, database, signal } = context;
  await refresh(context, { list: true });
  // First: what nothing names yet would be removed.
  const adopted = dryRun ? undefined : await adoptV1(context, upstreams);
  const tags = await store.listTags({ signal });
  const holdings = await readHoldings(context, tags);
  const generations = database.view.generations();
  const plan = planGc(generations, policy, host.now(), holdings);
  // Before anything changes: afterwards the index no longer has what ended.
  const sizes = measure(database.view, plan.decisions, holdings);
  if (dryRun) return { ...plan, sizes };

  const ending = plan.decisions.filter(({ ends }) => ends);
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
    ...plan,
    sizes,
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

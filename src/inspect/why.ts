/**
 * Why a path is in a cache, or since when it is not: which generations hold it, through which root, and what keeps
 * those alive.
 */
import type { IndexReader } from "../cache/index-reader.ts";
import type { GenerationName } from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import { type Decision, type Policy, planGc } from "../gc/plan.ts";
import { parseNarInfo } from "../nar/narinfo.ts";
import { STORE_DIR, STORE_HASH_LENGTH } from "../nar/store-path.ts";
import { earlierTime } from "../protocol/clock.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { readContentsOrWarn } from "./contents.ts";
import { type EndedGeneration, knownGenerations } from "./known.ts";
import { References } from "./references.ts";

export interface Why {
  /** Undefined where only the hash is known. */
  readonly path: string | undefined;
  /** Generations that hold it and what gc says of them, the newest first. */
  readonly holders: readonly Holder[];
  /** Where none does: the last that held it and has ended, as long as it is not deleted. */
  readonly lastHolder: EndedGeneration | undefined;
  /** Where none does: when it left the index of this machine, in milliseconds since 1970, if it was in it lately. */
  readonly leftAt: number | undefined;
  /** Whether an index of nixcache-oci has it that no generation has adopted yet. */
  readonly unadopted: boolean;
  /** Generations that could not be read. */
  readonly unread: readonly GenerationName[];
}

/** Whether anything holds it. */
export function isHeld({ holders, unadopted }: Why): boolean {
  return holders.length > 0 || unadopted;
}

export interface Holder extends Decision {
  /** Undefined where no root leads to it by references that the cache has. */
  readonly root: Way | undefined;
}

/** A shortest way to the path. */
export interface Way {
  /** Name of the root in the publish record. */
  readonly output: string;
  /** Store paths from the root to the path, both among them. */
  readonly chain: readonly string[];
}

/** Whether a generation could be read, and the name that it has the path under. */
type Ask = (name: GenerationName) => Promise<{ isRead: boolean; found: string | undefined }>;

/** @param policy by which gc would decide now. @throws when the cache cannot be read */
export async function explain(context: ProtocolContext, hash: string, policy: Policy): Promise<Why> {
  const known = await knownGenerations(context);
  const { view } = context.database;
  const unread: GenerationName[] = [];
  const ask: Ask = async (name) => {
    let found: string | undefined;
    const consequence = "whether it holds the path is not known";
    const isRead = await readContentsOrWarn(context, name, consequence, (path) => {
      if (path.hash === hash) found = path.name;
    });
    if (!isRead) unread.push(name);
    return { isRead, found };
  };
  const names = await liveHolders(context, view, hash, ask);
  const foreign = view.v1Layer()?.id;
  const unadopted = foreign !== undefined && view.layersOf(hash).includes(foreign);
  if (names.size > 0 || unadopted) {
    const { decisions } = planGc(known.live, policy, earlierTime(context));
    const references = new References((of) => view.narinfo(of));
    const holders = decisions
      .filter(({ name }) => names.has(name))
      .map((decision) => ({ ...decision, root: wayTo(hash, decision, references, view) }));
    const path = storePathOf(hash, view);
    return { path, holders: holders.reverse(), lastHolder: undefined, leftAt: undefined, unadopted, unread };
  }
  const last = await lastHolder(known.ended, context.concurrency, ask);
  return {
    path: last && `${STORE_DIR}/${hash}-${last.name}`,
    holders: [],
    lastHolder: last?.generation,
    leftAt: view.leftAt(hash),
    unadopted,
    unread,
  };
}

/**
 * Of the generations below a root layer only those are asked that may hold the path: a layer lacks what the layers
 * below it have, so what first has the path holds it, or a layer above. Those with the same lines are read once.
 */
async function liveHolders(
  { concurrency }: ProtocolContext,
  view: IndexReader,
  hash: string,
  ask: Ask,
): Promise<Set<GenerationName>> {
  const having = new Set(view.layersOf(hash));
  const stack = view.layers().filter(({ position }) => position !== null);
  const lowest = stack.findIndex(({ id }) => having.has(id));
  const possible = lowest === -1 ? [] : stack.slice(lowest).flatMap(({ id }) => view.generations(id));
  const own = view.uncovered().filter(({ id }) => having.has(id));
  const holders = new Set(own.flatMap(({ id }) => view.generations(id)).map(({ name }) => name));
  const same = Map.groupBy(possible, ({ record }) => record.content);
  await mapConcurrently([...same.values()], concurrency, async (generations) => {
    for (const { name } of generations) {
      const { isRead, found } = await ask(name);
      if (!isRead) continue;
      if (found !== undefined) for (const { name } of generations) holders.add(name);
      return;
    }
  });
  return holders;
}

/** Reads those that ended last first, a few at once, until one has held the path. */
async function lastHolder(
  ended: readonly EndedGeneration[],
  concurrency: number,
  ask: Ask,
): Promise<{ generation: EndedGeneration; name: string } | undefined> {
  const latestFirst = [...ended].sort((a, b) => (b.endedAt ?? 0) - (a.endedAt ?? 0));
  for (let at = 0; at < latestFirst.length; at += concurrency) {
    const some = latestFirst.slice(at, at + concurrency);
    const answers = await mapConcurrently(some, concurrency, ({ name }) => ask(name));
    for (const [place, { found }] of answers.entries()) {
      if (found !== undefined) return { generation: some[place] as EndedGeneration, name: found };
    }
  }
  return undefined;
}

function wayTo(
  hash: string,
  { record }: Decision,
  references: References,
  view: IndexReader,
): Way | undefined {
  const roots = Object.entries(record.roots);
  // A record is a publisher's word: what is no store path leads nowhere.
  const hashes = roots.map(([, path]) =>
    path.slice(STORE_DIR.length + 1, STORE_DIR.length + 1 + STORE_HASH_LENGTH),
  );
  const chain = references.shortestChain(hashes, hash);
  const output = chain && roots[chain.root]?.[0];
  if (chain === undefined || output === undefined) return undefined;
  return { output, chain: chain.hashes.map((of) => storePathOf(of, view) ?? of) };
}

function storePathOf(hash: string, view: IndexReader): string | undefined {
  const narinfo = view.narinfo(hash);
  return narinfo === undefined ? undefined : parseNarInfo(narinfo, hash).storePath;
}

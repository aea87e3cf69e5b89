/** Publishes store paths that are there. */

import { rootsOf } from "../cache/roots.ts";
import { mapConcurrently } from "../concurrency.ts";
import { publishOrigin } from "../config.ts";
import { type Context, openCache } from "../context.ts";
import type { NixStore } from "../nix/store.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { type PublishResult, publish } from "../publish/publish.ts";
import { TOOL } from "../version.ts";
import { nixSystem, type PublishSetup } from "./publish-setup.ts";

/** Without Nix's database each name is a process of nix-store. */
const RESOLVE_AT_ONCE = 8;

/** What a cache holds after a publish, by the local index. */
export interface Holdings {
  readonly cacheName: string;
  readonly paths: number;
  readonly generations: number;
}

export async function publishNamed(
  names: readonly string[],
  setup: PublishSetup,
  context: Context,
): Promise<{ result: PublishResult; holdings: Holdings }> {
  const { store } = setup;
  const paths = await resolveAll(names, store);
  const closure = await store.closure(paths);
  using cache = openCache(setup.reference, "write", context, { keys: setup.ownKeys });
  const result = await publish(
    closure,
    { tool: TOOL, ...publishOrigin(context.env), system: nixSystem(), roots: rootsOf(paths) },
    { ...setup.publish(cache.protocol), realisations: store.realisations(closure.map(({ path }) => path)) },
    { dryRun: setup.dryRun },
  ).finally(() => setup.progress.done());
  return { result, holdings: holdingsOf(cache.protocol) };
}

export function resolveAll(names: readonly string[], store: NixStore): Promise<string[]> {
  return mapConcurrently(names, RESOLVE_AT_ONCE, (name) => store.resolve(name));
}

export function holdingsOf({ store, database }: ProtocolContext): Holdings {
  const { view } = database;
  return { cacheName: store.name, paths: view.count(), generations: view.generations().length };
}

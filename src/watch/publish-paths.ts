/** Publishes store paths by name, while others are built and some may be deleted. */

import { rootsOf } from "../cache/roots.ts";
import type { NixStore } from "../nix/store.ts";
import { type ValidOptions, validPaths } from "../nix/valid.ts";
import {
  type Origin,
  type PublishContext,
  type PublishOptions,
  type PublishResult,
  publish,
} from "../publish/publish.ts";

export interface PathsContext {
  readonly store: NixStore;
  /** Where that store is. */
  readonly location: ValidOptions;
  readonly origin: Omit<Origin, "roots">;
  readonly publish: PublishContext;
}

/** Publishes the closures of those of `paths` that are still valid, under their names. */
export async function publishPaths(
  paths: readonly string[],
  { store, location, origin, publish: context }: PathsContext,
  options: PublishOptions = {},
): Promise<PublishResult> {
  const valid = await validPaths(paths, location);
  const there = paths.filter((path) => valid.has(path));
  const closure = await store.closure(there);
  const realisations = store.realisations(closure.map(({ path }) => path));
  return publish(closure, { ...origin, roots: rootsOf(there) }, { ...context, realisations }, options);
}

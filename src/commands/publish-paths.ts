/** Publishes store paths that are there. */

import { rootsOf } from "../cache/roots.ts";
import { mapConcurrently } from "../concurrency.ts";
import { publishOrigin } from "../config.ts";
import { type Context, openCache } from "../context.ts";
import { NixcacheError, printable } from "../errors.ts";
import { NoStorePath } from "../nix/no-store-path.ts";
import type { NixStore } from "../nix/store.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import type { LeftOut } from "../publish/complete.ts";
import { type PublishResult, publish } from "../publish/publish.ts";
import { TOOL } from "../version.ts";
import { nixSystem, type PublishSetup } from "./publish-setup.ts";
import type { NamedThings } from "./publish-wanted.ts";

/** Without Nix's database each name is a process of nix-store. */
const RESOLVE_AT_ONCE = 8;

/** What a cache holds after a publish, by the local index. */
export interface Holdings {
  readonly cacheName: string;
  readonly paths: number;
  readonly generations: number;
}

export interface PublishedPaths {
  /** Undefined when nothing was to be published. */
  readonly result: PublishResult | undefined;
  readonly holdings?: Holdings;
  /** What was named and cannot be published. */
  readonly leftOut: readonly LeftOut[];
  /** Why nothing was to be published. */
  readonly readOnly?: string;
}

/** @throws when none of what is named can be published */
export async function publishNamed(
  named: NamedThings,
  setup: PublishSetup,
  context: Context,
): Promise<PublishedPaths> {
  const { store } = setup;
  const { paths, leftOut } = await resolveAll(named, store);
  const [first, ...others] = leftOut;
  if (paths.length === 0 && first !== undefined) {
    for (const { error } of others) context.log.error(error.message);
    throw first.error;
  }
  const closure = await store.closure(paths);
  // Elsewhere the first upload tells.
  const readOnly = setup.mayBeReadOnly ? await setup.askRights() : undefined;
  if (readOnly !== undefined) return { result: undefined, readOnly, leftOut };
  using cache = openCache(setup.reference, "write", context, { trust: setup.trust });
  const result = await publish(
    closure,
    { tool: TOOL, ...publishOrigin(context.env), system: nixSystem(), roots: rootsOf(paths) },
    { ...setup.publish(cache.protocol), realisations: store.realisations(closure.map(({ path }) => path)) },
    { dryRun: setup.dryRun },
  ).finally(() => setup.progress.done());
  return { result: withLeftOut(result, leftOut), leftOut, holdings: holdingsOf(cache.protocol) };
}

export interface Resolved {
  /** Valid store paths. */
  readonly paths: readonly string[];
  /** What is none, by the name that it was given by. */
  readonly leftOut: readonly (LeftOut & { readonly error: NixcacheError })[];
}

/** @throws what is no fault of a name, such as a store that cannot be read */
export async function resolveAll({ names, unusable }: NamedThings, store: NixStore): Promise<Resolved> {
  const found = await mapConcurrently(names, RESOLVE_AT_ONCE, async (name) => {
    try {
      return await store.resolve(name);
    } catch (error) {
      if (!(error instanceof NoStorePath)) throw error;
      return { path: printable(name), reason: error.message, error };
    }
  });
  return {
    paths: found.flatMap((one) => (typeof one === "string" ? [one] : [])),
    leftOut: [
      ...unusable.map(({ name, reason }) => {
        const error = new NixcacheError("nix-store", `${name}: ${reason}`);
        return { path: printable(name), reason, error };
      }),
      ...found.flatMap((one) => (typeof one === "string" ? [] : [one])),
    ],
  };
}

/** A result with what could not even be looked for. */
export function withLeftOut(result: PublishResult, leftOut: Resolved["leftOut"]): PublishResult {
  const named = leftOut.map(({ path, reason }) => ({ path, reason }));
  return named.length === 0 ? result : { ...result, leftOut: [...named, ...result.leftOut] };
}

export function holdingsOf({ store, database }: ProtocolContext): Holdings {
  const { view } = database;
  return { cacheName: store.name, paths: view.count(), generations: view.generations().length };
}

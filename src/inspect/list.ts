/** What is in a cache: its paths with their sizes, and on request which generations hold each. */
import { Catalog, type CatalogPath, type Order, type Totals } from "../cache/catalog.ts";
import type { Generation } from "../cache/index-layer.ts";
import type { GenerationName } from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { refresh } from "../protocol/refresh.ts";
import { readContentsOrWarn } from "./contents.ts";
import { type ClosureSize, References } from "./references.ts";

export interface ListOptions {
  /** Words that all must be in a name, whatever their case; or a store path or its hash. */
  readonly text: string;
  readonly order: Order;
  /** Paths at most, the first ones of the order. */
  readonly limit?: number | undefined;
  readonly closures: boolean;
  readonly holders: boolean;
}

export interface ListedPath extends CatalogPath {
  /** Where asked for. */
  readonly closure?: ClosureSize;
  /** The generations that hold it, the newest first; where asked for. */
  readonly generations?: readonly GenerationName[];
}

export interface List {
  /** Of all that match, listed or not. */
  readonly totals: Totals;
  /** Made while they are taken. */
  readonly paths: Iterable<ListedPath>;
}

/**
 * Hands the list to `use`, one path after the other: neither all names nor all closures are in memory at once.
 * @throws when the cache cannot be read
 */
export async function withList<T>(
  context: ProtocolContext,
  { text, order, limit, closures, holders }: ListOptions,
  use: (list: List) => Promise<T>,
): Promise<T> {
  await refresh(context, { list: true });
  const { database } = context;
  using catalog = new Catalog(database);
  // Signals come in between.
  const pause = async () => {
    await new Promise((resolve) => setImmediate(resolve));
    context.signal?.throwIfAborted();
  };
  await catalog.readNames(pause);
  return await database.snapshot(async (view) => {
    const references = new References((hash) => view.narinfo(hash));
    if (order === "closure")
      await catalog.measureClosures(text, (hash) => references.closureSize(hash).narSize, pause);
    const chosen = () => catalog.list(text, order, limit);
    const held = holders ? await readHolders(context, view.generations(), chosen()) : undefined;
    function* paths(): Generator<ListedPath> {
      let place = 0;
      for (const path of chosen()) {
        const generations = held?.(place++);
        yield {
          ...path,
          ...(closures && { closure: references.closureSize(path.hash) }),
          ...(generations && { generations }),
        };
      }
    }
    return await use({ totals: catalog.totalsOf(text), paths: paths() });
  });
}

/**
 * Reads every generation once, those with the same lines only once together. A bit for each path and generation: a
 * thousand generations and a hundred thousand paths are 12 MiB.
 * @returns the generations that hold a path, by its place in the list
 */
async function readHolders(
  context: ProtocolContext,
  generations: readonly Generation[],
  paths: Iterable<CatalogPath>,
): Promise<(place: number) => GenerationName[]> {
  const places = new Map<string, number>();
  for (const { hash } of paths) places.set(hash, places.size);
  const same = Map.groupBy(generations, ({ record }) => record.content);
  const read = places.size === 0 ? [] : [...same.values()];
  const bits = new Map<GenerationName, Uint8Array>();
  await mapConcurrently(read, context.concurrency, async (some) => {
    const held = new Uint8Array(Math.ceil(places.size / 8));
    for (const { name } of some) {
      const isRead = await readContentsOrWarn(context, name, "what it holds is not known", ({ hash }) => {
        const place = places.get(hash);
        if (place !== undefined) held[place >> 3] = (held[place >> 3] as number) | (1 << (place & 7));
      });
      if (!isRead) continue;
      for (const { name } of some) bits.set(name, held);
      return;
    }
  });
  const newestFirst = generations.map(({ name }) => name).reverse();
  return (place) =>
    newestFirst.filter((name) => ((bits.get(name)?.[place >> 3] ?? 0) & (1 << (place & 7))) !== 0);
}

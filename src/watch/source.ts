/** Where the news comes from that a path is finished. */
import { type BuiltOptions, type BuiltPath, builtPaths, newestPathId } from "../nix/built.ts";
import type { Queue } from "./queue.ts";

export interface PathSource {
  /** What was finished since the last time, in the order in which it became valid. @throws when it cannot be told */
  news(): readonly BuiltPath[];
  /** Says that these paths are in the cache. */
  committed(paths: readonly string[]): void;
}

/**
 * The outputs of these derivations that were built here, now or before: the store's database itself is the queue,
 * which no killed process forgets. What others build meanwhile is not in it.
 *
 * `news` throws DatabaseUnreadable.
 */
export function outputsOf(derivations: ReadonlySet<string>, store: BuiltOptions): PathSource {
  let seen = 0;
  return {
    news() {
      const { paths, until } = builtPaths(store, seen, derivations);
      seen = until;
      return paths;
    },
    committed() {},
  };
}

/** What a post-build hook announces, and has announced to an earlier process. */
export function announced(queue: Queue): PathSource {
  const given = new Set<string>();
  const committed = new Set<string>();
  return {
    news() {
      const paths = [...queue.read().values()].flat().filter((path) => !given.has(path));
      for (const path of paths) given.add(path);
      return [...new Set(paths)].map((path) => ({ path, narSize: 0 }));
    },
    committed(paths) {
      for (const path of paths) committed.add(path);
      for (const [name, announced] of queue.read()) {
        if (announced.every((path) => committed.has(path))) queue.remove(name);
      }
    },
  };
}

/** All that is built in this store from now on, by whomever. What belongs to the run is never forgotten. */
export interface CommandSource extends PathSource {
  /** Everything so far, and what an earlier process has left. */
  all(): readonly string[];
  /** Says that all of it is in the cache. */
  done(): void;
}

/**
 * @param run a name for this run in the queue
 * @throws DatabaseUnreadable; so does `news`
 */
export function builtFromNowOn(store: BuiltOptions, queue: Queue, run: string): CommandSource {
  const leftovers = queue.read();
  const all = new Set([...leftovers.values()].flat());
  let unsaid: readonly BuiltPath[] = [...all].map((path) => ({ path, narSize: 0 }));
  let seen = newestPathId(store);
  return {
    news() {
      const { paths, until } = builtPaths(store, seen);
      const fresh = paths.filter(({ path }) => !all.has(path));
      if (fresh.length > 0)
        queue.append(
          run,
          fresh.map(({ path }) => path),
        );
      seen = until;
      for (const { path } of fresh) all.add(path);
      const news = [...unsaid, ...fresh];
      unsaid = [];
      return news;
    },
    committed() {},
    all: () => [...all],
    done() {
      for (const name of [run, ...leftovers.keys()]) queue.remove(name);
    },
  };
}

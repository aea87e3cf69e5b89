/**
 * The catalog of a cache that people see. One is made when somebody looks, and a new one when the index has changed
 * since and somebody looks again; until that one has all names, pages of paths come from the one before.
 */
import { Catalog, type CatalogIndex, type Pause } from "../../cache/catalog.ts";
import type { IndexReader } from "../../cache/index-reader.ts";
import { messageOf } from "../../errors.ts";

export interface CatalogKeeper extends Disposable {
  /** The newest one: its publishes and keys are there, its paths perhaps not yet. @throws when the index is damaged */
  newest(): Catalog;
  /** The last one that has all names. */
  complete(): Catalog | undefined;
  /** Has `read` pass over the newest catalog with all names, in turn. Undefined while no names have been read yet. */
  pass<T>(read: (catalog: Catalog, pause: Pause) => Promise<T>, signal: AbortSignal): Promise<T | undefined>;
  /** Does long work in slices, one after the other: together they hold up look-ups no more than one does. */
  inTurn<T>(work: (pause: Pause) => Promise<T>, signal: AbortSignal): Promise<T>;
}

/** A turn of the event loop: requests that have come in are answered. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/**
 * @param index the local index
 * @param onError told when names cannot be read
 */
export function keepCatalog(index: CatalogIndex, onError: (message: string) => void): CatalogKeeper {
  let newest: { readonly catalog: Catalog; readonly state: string } | undefined;
  let complete: Catalog | undefined;
  let reading: Promise<void> | undefined;
  let turns: Promise<unknown> = Promise.resolve();
  const closed = new AbortController();

  function inTurn<T>(work: (pause: Pause) => Promise<T>, signal: AbortSignal): Promise<T> {
    const pause = async () => {
      await nextTurn();
      signal.throwIfAborted();
      closed.signal.throwIfAborted();
    };
    const result = turns.then(() => {
      signal.throwIfAborted();
      return work(pause);
    });
    turns = result.catch(() => {});
    return result;
  }

  async function readNames(catalog: Catalog): Promise<void> {
    try {
      await catalog.readNames(async () => {
        await nextTurn();
        closed.signal.throwIfAborted();
      });
      // In turn, so that no pass sees its catalog closed.
      await inTurn(async () => {
        complete?.[Symbol.dispose]();
        complete = catalog;
      }, closed.signal);
    } catch (error) {
      if (closed.signal.aborted) return;
      onError(`the names in the local index could not be read: ${messageOf(error)}`);
      newest = undefined;
      catalog[Symbol.dispose]();
    }
  }

  return {
    newest() {
      const state = stateOf(index.view);
      // While one is read the index may change many times; the next look after that sees it.
      if (newest === undefined || (newest.state !== state && reading === undefined)) {
        const catalog = new Catalog(index);
        newest = { catalog, state };
        reading = readNames(catalog).finally(() => {
          reading = undefined;
        });
      }
      return newest.catalog;
    },
    complete: () => complete,
    pass: (read, signal) =>
      inTurn(async (pause) => (complete === undefined ? undefined : read(complete, pause)), signal),
    inTurn,
    [Symbol.dispose]() {
      closed.abort();
      for (const catalog of new Set([newest?.catalog, complete])) catalog?.[Symbol.dispose]();
      newest = undefined;
      complete = undefined;
    },
  };
}

/** Which entries there are follows from which layers there are. */
function stateOf(view: IndexReader): string {
  return view
    .layers()
    .map(({ id, digest }) => `${id} ${digest}`)
    .join("\n");
}

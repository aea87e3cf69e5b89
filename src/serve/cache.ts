/**
 * The cache that a server reads: its local index, kept up to date in the background.
 */
import type { IndexReader } from "../cache/index-reader.ts";
import { messageOf, NixcacheError } from "../errors.ts";
import type { Store } from "../oci/store.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { refresh } from "../protocol/refresh.ts";
import type { Source } from "./source.ts";

export interface ServedCache extends Source {
  readonly store: Store;
  readonly view: IndexReader;
  /** Whether an index was ever loaded, in this run or an earlier one. */
  isLoaded(): boolean;
  /** When the index was last known to be current, in milliseconds since 1970. */
  refreshedAt(): number | undefined;
  /** Why the last refresh failed; undefined when it did not. */
  lastError(): string | undefined;
  /**
   * Asks the registry now, tags and all. Calls at the same moment share one refresh that begins after the call.
   * @throws when the cache cannot be read; the view stays.
   */
  refresh(): Promise<void>;
}

/** @param onError told about each refresh that fails, once for a run of the same failures. */
export function serveCache(
  context: ProtocolContext,
  onError: (message: string) => void,
): ServedCache & Refresher {
  const { database } = context;
  let running: Promise<void> = Promise.resolve();
  let queued: Promise<void> | undefined;
  let queuedLists = false;
  let lastError: string | undefined;

  async function refreshNow(list: boolean): Promise<void> {
    try {
      await refresh(context, { list });
      lastError = undefined;
    } catch (error) {
      const message = messageOf(error);
      if (message !== lastError && !context.signal?.aborted) onError(message);
      lastError = message;
      throw error;
    }
  }

  /** A refresh that runs now may have read the registry before the caller asked, so the caller gets the next. */
  function enqueue(list: boolean): Promise<void> {
    queuedLists ||= list;
    queued ??= running
      .catch(() => {})
      .then(() => {
        running = refreshNow(queuedLists);
        queued = undefined;
        queuedLists = false;
        return running;
      });
    return queued;
  }

  return {
    store: context.store,
    get view() {
      return database.view;
    },
    isLoaded: () => database.view.state().refreshedAt !== undefined,
    refreshedAt: () => database.view.state().refreshedAt,
    lastError: () => lastError,
    refresh: () => enqueue(true),
    async keepFresh(everyMs) {
      for (let first = true; !context.signal?.aborted; first = false) {
        // An earlier run may have listed the tags long ago.
        await enqueue(first).catch((error) => {
          // A folder that holds something else never becomes a cache by itself.
          if (error instanceof NixcacheError && error.code === "layout") throw error;
        });
        await context.host.sleep(everyMs, context.signal).catch(() => {});
      }
    },
  };
}

export interface Refresher {
  /**
   * Refreshes at once and then at the interval, until the signal of the context.
   * @throws `layout` alone; what may pass is tried again.
   */
  keepFresh(everyMs: number): Promise<void>;
}

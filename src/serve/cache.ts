/**
 * The cache that a server reads: its local index, kept up to date in the background.
 */
import type { IndexDatabase } from "../cache/database.ts";
import type { IndexReader } from "../cache/index-reader.ts";
import { type GenerationName, generationTime } from "../cache/tags.ts";
import { messageOf, NixcacheError } from "../errors.ts";
import type { Store } from "../oci/store.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { loadGeneration } from "../protocol/one-generation.ts";
import { refresh } from "../protocol/refresh.ts";
import type { Source } from "./source.ts";

export interface ServedCache extends Source {
  readonly store: Store;
  readonly view: IndexReader;
  readonly index: IndexDatabase;
  /** Where only one generation is served, which; undefined for the cache as it is now. */
  readonly generation: GenerationName | undefined;
  /** Whether an index was ever loaded, in this run or an earlier one. */
  isLoaded(): boolean;
  /** When the index was last known to be current, in milliseconds since 1970. */
  refreshedAt(): number | undefined;
  /** Why the last refresh failed; undefined when it did not. */
  lastError(): string | undefined;
  /** What the index holds; computed once for each state of it, as counting a million entries takes time. */
  summary(): IndexSummary;
  /** Refreshes since the start. */
  readonly refreshes: { readonly ok: number; readonly failed: number };
  /** Resolves once a first refresh was tried, whatever became of it. */
  readonly tried: Promise<void>;
  /**
   * Asks the registry now, tags and all. Calls at the same moment share one refresh that begins after the call.
   * @throws when the cache cannot be read; the view stays.
   */
  refresh(): Promise<void>;
}

/**
 * From a refresh that failed to the next one, doubled for each further one. A machine that starts may ask before its
 * network is up, and should not wait for the whole interval then.
 */
const RETRY_MS = 5_000;

export interface IndexSummary {
  readonly entries: number;
  readonly generations: number;
  /** When the newest generation was published, in milliseconds since 1970. */
  readonly generatedAt: number | undefined;
  /** Of the index layers, compressed. */
  readonly bytes: number;
  /** Public keys of the publishers. */
  readonly keys: readonly string[];
}

/**
 * @param onError told about each refresh that fails, once for a run of the same failures.
 * @param generation the only one to serve; the context's index is then for that one alone.
 */
export function serveCache(
  context: ProtocolContext,
  onError: (message: string) => void,
  generation?: GenerationName,
): ServedCache & Refresher {
  const { database } = context;
  let running: Promise<void> = Promise.resolve();
  let queued: Promise<void> | undefined;
  let queuedLists = false;
  let lastError: string | undefined;
  const refreshes = { ok: 0, failed: 0 };
  const tried = Promise.withResolvers<void>();
  const summary = summaryOf(() => database.view);
  const isLoaded = () => database.view.state().refreshedAt !== undefined;

  async function refreshNow(list: boolean): Promise<void> {
    try {
      if (generation === undefined) await refresh(context, { list });
      else await loadGeneration(context, generation);
      lastError = undefined;
      refreshes.ok++;
    } catch (error) {
      refreshes.failed++;
      const message = messageOf(error);
      const hint = error instanceof NixcacheError && error.hint !== undefined ? `. ${error.hint}` : "";
      if (message !== lastError && !context.signal?.aborted) onError(message + hint);
      lastError = message;
      throw error;
    } finally {
      tried.resolve();
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
    index: database,
    generation,
    get view() {
      return database.view;
    },
    isLoaded,
    refreshedAt: () => database.view.state().refreshedAt,
    lastError: () => lastError,
    summary,
    refreshes,
    tried: tried.promise,
    refresh: () => enqueue(true),
    async keepFresh(everyMs) {
      // An earlier run may have listed the tags long ago.
      let list = true;
      let failures = 0;
      while (!context.signal?.aborted) {
        try {
          await enqueue(list);
          list = false;
          failures = 0;
        } catch (error) {
          // A folder that holds something else never becomes a cache by itself, and what was deleted never comes back.
          if (
            error instanceof NixcacheError &&
            (error.code === "layout" || (error.code === "absent" && !isLoaded()))
          )
            throw error;
          failures++;
        }
        const waitMs = failures === 0 ? everyMs : Math.min(everyMs, RETRY_MS * 2 ** (failures - 1));
        await context.host.sleep(waitMs, context.signal).catch(() => {});
      }
    },
  };
}

/** A layer never changes, so what is computed from layers holds for as long as they are the same. */
function summaryOf(view: () => IndexReader): () => IndexSummary {
  let kept: { of: string; summary: IndexSummary } | undefined;
  return () => {
    const layers = view().layers();
    const of = layers.map(({ digest }) => digest).join();
    if (kept?.of !== of) {
      const generations = view().generations();
      const publishes = view().publishes();
      const newest = publishes.at(-1)?.name;
      const summary = {
        entries: view().count(),
        generations: generations.length,
        generatedAt: newest === undefined ? undefined : generationTime(newest),
        bytes: layers.reduce((sum, { size }) => sum + size, 0),
        keys: [...new Set(publishes.flatMap(({ record }) => record.keys))],
      };
      kept = { of, summary };
    }
    return kept.summary;
  };
}

export interface Refresher {
  /**
   * Refreshes at once and then at the interval, sooner after one that failed, until the signal of the context.
   * @throws `layout`, and `absent` for a generation that is not there; what may pass is tried again.
   */
  keepFresh(everyMs: number): Promise<void>;
}

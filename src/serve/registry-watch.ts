/**
 * The blobs of a registry, asked for while it answers. Once it does not, that is waited for by one client and not by each:
 * what is asked for next fails at once, until a question of a single byte finds out that it is back.
 */
import { messageOf, NixcacheError } from "../errors.ts";
import type { Host } from "../host.ts";
import type { CacheableStore } from "../oci/blob-cache.ts";
import type { Digest } from "../oci/digest.ts";
import { lastAnswer } from "../oci/retry.ts";
import type { Store } from "../oci/store.ts";
import { Breaker } from "../upstream/breaker.ts";
import { LeftAlone } from "../upstream/failure.ts";

type ReadBlob = Store["readBlob"];
type ReadBlobOptions = NonNullable<Parameters<ReadBlob>[1]>;

export interface WatchOptions {
  readonly host: Host;
  /** Told when it stops to answer, and when it is back. */
  readonly onError: (message: string) => void;
}

/** How long a client waits for the outcome of that question, from its beginning, in milliseconds. */
const PROBE_WAIT_MS = 1_000;

/** So many such questions may follow each other at once, and then one in so many milliseconds. */
const PROBES = 5;
const PROBE_EVERY_MS = 500;

/** After a question that clients did not wait for to the end: a registry that hangs is asked for a tenth of the time. */
const pauseMs = (opened: number, tookMs: number) =>
  opened === 0 || tookMs <= PROBE_WAIT_MS ? 0 : Math.min(30_000, 10 * tookMs);

/**
 * `store`, watched. What does not say how large the blob is passes by: the index, which is asked for by a clock of its own.
 */
export function watchRegistry(store: CacheableStore, options: WatchOptions): CacheableStore {
  const watch = new RegistryWatch(store, options);
  return {
    name: store.name,
    ignoresRange: store.ignoresRange,
    readBlob: (digest, how = {}) =>
      how.size === undefined ? store.readBlob(digest, how) : watch.readBlob(digest, how),
  };
}

class RegistryWatch {
  readonly #store: CacheableStore;
  readonly #host: Host;
  readonly #onError: (message: string) => void;
  readonly #breaker: Breaker;
  /** Of questions that no byte was answered to yet. */
  readonly #pending = new Set<AbortController>();
  /** Questions that may be asked now whether it is back, as of a time. */
  #probes = { left: PROBES, at: Number.NEGATIVE_INFINITY };
  #probe: { readonly ended: Promise<void>; readonly since: number } | undefined;
  #lastError = "";

  constructor(store: CacheableStore, { host, onError }: WatchOptions) {
    this.#store = store;
    this.#host = host;
    this.#onError = onError;
    this.#breaker = new Breaker(host, pauseMs);
  }

  async readBlob(digest: Digest, options: ReadBlobOptions): ReturnType<ReadBlob> {
    if (!(await this.#isAsked(digest))) throw this.#leftAlone();
    const askedAt = this.#host.now();
    const abort = new AbortController();
    this.#pending.add(abort);
    const client = options.signal;
    const signal = client === undefined ? abort.signal : AbortSignal.any([client, abort.signal]);
    let isMoving = false;
    const moves = () => {
      if (isMoving) return;
      isMoving = true;
      this.#pending.delete(abort);
      this.#breaker.succeeded();
      this.#probes.left = PROBES;
    };
    const fails = (error: unknown) => {
      this.#pending.delete(abort);
      if (client?.aborted) return error;
      if (abort.signal.aborted) return this.#leftAlone();
      return this.#failed(error, isMoving ? this.#host.now() : askedAt);
    };
    try {
      const body = await this.#store.readBlob(digest, { ...options, signal });
      if (body !== undefined)
        return followed(body, { moves, fails, left: () => this.#pending.delete(abort) });
      moves();
      return undefined;
    } catch (error) {
      throw fails(error);
    }
  }

  /** Whether it answers, as far as that is known, or can be found out soon. */
  async #isAsked(digest: Digest): Promise<boolean> {
    const { retryAt } = this.#breaker;
    if (retryAt === undefined) return true;
    const now = this.#host.now();
    if (this.#probe === undefined) {
      if (now < retryAt || !this.#mayProbe(now)) return false;
      const ended = this.#findOut(digest, now).finally(() => {
        this.#probe = undefined;
      });
      this.#probe = { ended, since: now };
    }
    const left = PROBE_WAIT_MS - (now - this.#probe.since);
    if (left <= 0) return false;
    const stop = new AbortController();
    await Promise.race([this.#probe.ended, this.#host.sleep(left, stop.signal).catch(() => {})]);
    stop.abort();
    return !this.#breaker.isOpen;
  }

  #mayProbe(now: number): boolean {
    const left = Math.min(PROBES, this.#probes.left + (now - this.#probes.at) / PROBE_EVERY_MS);
    if (left < 1) return false;
    this.#probes = { left: left - 1, at: now };
    return true;
  }

  /** Asks for the first byte of a blob. Never rejects. */
  async #findOut(digest: Digest, askedAt: number): Promise<void> {
    try {
      const body = await this.#store.readBlob(digest, { range: { offset: 0, length: 1 }, attempts: 1 });
      for await (const _ of body ?? []) break;
    } catch (error) {
      if (isOutage(error)) {
        this.#breaker.failed({ askedAt, whole: true, waitMs: lastAnswer(error)?.afterMs });
        this.#lastError = messageOf(error);
        return;
      }
      // What it answers with is for those who ask.
    }
    this.#breaker.close();
    this.#onError(`${this.#store.name} answers again`);
  }

  /** @returns what is to be thrown: nobody need tell again what was told here */
  #failed(error: unknown, askedAt: number): unknown {
    if (!isOutage(error)) return error;
    const status = lastAnswer(error)?.status;
    // A 500 may be about one blob; no answer, or "too many requests", is about the whole.
    const whole = status === undefined || status === 429;
    if (!this.#breaker.failed({ askedAt, whole, waitMs: lastAnswer(error)?.afterMs })) return error;
    this.#lastError = messageOf(error);
    this.#onError(`${this.#lastError}; until it answers again its NARs count as absent`);
    for (const abort of this.#pending) abort.abort();
    return this.#leftAlone();
  }

  #leftAlone(): LeftAlone {
    return new LeftAlone(`${this.#store.name} does not answer: ${this.#lastError}`);
  }
}

function isOutage(error: unknown): boolean {
  return error instanceof NixcacheError && error.code === "unreachable";
}

interface Followed {
  /** Called with each chunk. */
  readonly moves: () => void;
  /** @returns what the reader gets in the place of an error */
  readonly fails: (error: unknown) => unknown;
  /** The reader has turned away. */
  readonly left: () => void;
}

/** The same bytes as they come. */
function followed(
  body: ReadableStream<Uint8Array>,
  { moves, fails, left }: Followed,
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await reader.read();
          moves();
          if (done) controller.close();
          else controller.enqueue(value);
        } catch (error) {
          throw fails(error);
        }
      },
      cancel(reason) {
        left();
        return reader.cancel(reason);
      },
    },
    { highWaterMark: 0 },
  );
}

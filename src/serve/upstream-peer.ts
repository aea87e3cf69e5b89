/**
 * One upstream as serve sees it: asked while it answers, left alone while it does not, and watched.
 *
 * Whether it is back is found out in the background, when somebody would have asked it; no client waits for that.
 */
import { timingSafeEqual } from "node:crypto";
import { Semaphore } from "../concurrency.ts";
import { messageOf, NixcacheError } from "../errors.ts";
import type { Host } from "../host.ts";
import { isSignature } from "../nar/signature.ts";
import { retryAfter } from "../oci/retry.ts";
import { Breaker } from "../upstream/breaker.ts";
import type { Upstream, UpstreamRequest } from "../upstream/client.ts";
import { UpstreamFailure } from "../upstream/failure.ts";
import { readCacheInfo } from "../upstream/read-cache-info.ts";
import { type NarNames, withReachableUrl } from "./nar-url.ts";

/** For operators: in `/_status` and the metrics. */
export interface UpstreamStatus {
  /** Without user and password. */
  readonly url: string;
  /** What its nix-cache-info says, which decides nothing here; null until that could be read. */
  readonly priority: number | null;
  /** `down` is left alone; `probing` is asked for its nix-cache-info at this moment. */
  readonly state: "up" | "down" | "probing";
  /** Since the process began. */
  readonly failures: number;
  /** Null when it answered since. */
  readonly lastError: string | null;
  /** When it will be probed at the earliest, in milliseconds since 1970; null while it is not left alone. */
  readonly retryAt: number | null;
  /** Requests for narinfos and files since the process began, and what came of them. */
  readonly requests: number;
  readonly hits: number;
  readonly misses: number;
  /** Of answers, in milliseconds, the newest counting most; null before the first. */
  readonly latency: number | null;
}

export interface PeerOptions {
  readonly host: Host;
  /** Told when it is left alone, when it is back, and about failures that do not stop it. */
  readonly onError: (message: string) => void;
  /** Whether `nar/<file>` means its NARs. */
  readonly isFirst: boolean;
  /** 32 bytes that nobody else knows. */
  readonly key: Uint8Array;
}

/** Questions for narinfos under way at once; fetch has 256 places for all, and a wait for one is no slowness. */
const CONCURRENCY = 64;

/** How much the newest answer counts in the mean latency. */
const LATENCY_WEIGHT = 0.2;

/** Of 401, 403 and 407 the client tells only those that say that the cache cannot be read. */
const REFUSALS: ReadonlySet<number> = new Set([401, 403, 407, 429]);

export class UpstreamPeer {
  readonly url: string;
  readonly #upstream: Upstream;
  readonly #names: NarNames;
  readonly #host: Host;
  readonly #onError: (message: string) => void;
  readonly #breaker: Breaker;
  readonly #turns = new Semaphore(CONCURRENCY);
  /** Of requests whose answer has not begun. */
  readonly #pending = new Set<AbortController>();
  #priority: number | undefined;
  #probing = false;
  #failures = 0;
  #lastError: string | undefined;
  #requests = 0;
  #hits = 0;
  #misses = 0;
  #latency: number | undefined;

  constructor(upstream: Upstream, { host, onError, isFirst, key }: PeerOptions) {
    this.#upstream = upstream;
    this.#host = host;
    this.#onError = onError;
    this.#breaker = new Breaker(host);
    this.url = upstream.url;
    const idOf = (path: string) =>
      new Bun.CryptoHasher("sha256", key).update(`${upstream.url}\n${path}`).digest("hex").slice(0, 32);
    this.#names = { isFirst, idOf };
  }

  /** Whether this id is what we have given to a narinfo of its that names this path. */
  hasNamed(id: string, path: string): boolean {
    const own = Buffer.from(this.#names.idOf(path));
    return own.length === id.length && timingSafeEqual(own, Buffer.from(id));
  }

  /** Whether it is not left alone. */
  get isAsked(): boolean {
    return !this.#breaker.isOpen;
  }

  /** Whether a question would reach it now. Where it would not, whether it is back is found out when that is due. */
  isReached(): boolean {
    const { retryAt } = this.#breaker;
    if (retryAt === undefined) return true;
    if (retryAt <= this.#host.now()) void this.probe();
    return false;
  }

  get status(): UpstreamStatus {
    return {
      url: this.url,
      priority: this.#priority ?? null,
      state: this.#probing ? "probing" : this.isAsked ? "up" : "down",
      failures: this.#failures,
      lastError: this.#lastError ?? null,
      retryAt: this.#breaker.retryAt ?? null,
      requests: this.#requests,
      hits: this.#hits,
      misses: this.#misses,
      latency: this.#latency ?? null,
    };
  }

  /**
   * The text of a narinfo with the URL by which we give its NAR, and without what is no signature, which Nix may stop at;
   * undefined when it has none.
   * @throws `unreachable`, at once while it is left alone
   */
  narinfo(storeHash: string, via: string): Promise<string | undefined> {
    return this.#turns.run(() =>
      this.#ask(async (signal) => {
        const text = await this.#upstream.narinfo(storeHash, signal, { via });
        return text === undefined ? undefined : withoutMalformed(withReachableUrl(text, this.#names).text);
      }),
    );
  }

  /** As of `Upstream`. @throws `unreachable`, at once while it is left alone */
  async request(path: string, init: UpstreamRequest): Promise<Response | undefined> {
    let answeredAt = this.#host.now();
    const onBroken = (failure: UpstreamFailure) => this.#failed(failure, answeredAt);
    const response = await this.#ask(
      (signal) => this.#upstream.request(path, { ...init, signal, onBroken }),
      init.signal,
    );
    answeredAt = this.#host.now();
    return response;
  }

  /** Asks for its nix-cache-info. Never rejects. */
  async probe(): Promise<void> {
    if (this.#probing) return;
    this.#probing = true;
    const askedAt = this.#host.now();
    const abort = new AbortController();
    this.#pending.add(abort);
    try {
      const info = await readCacheInfo(this.#upstream, abort.signal);
      this.#priority = info?.priority;
      if (this.#breaker.isOpen) this.#onError(`upstream ${this.url}: it answers again`);
      this.#breaker.close();
      this.#lastError = undefined;
    } catch (error) {
      if (!abort.signal.aborted) this.#failed(error, askedAt);
    } finally {
      this.#pending.delete(abort);
      this.#probing = false;
    }
  }

  /** Ends what waits for it. */
  close(): void {
    this.#endPending(new NixcacheError("interrupted", `upstream ${this.url}: interrupted`));
  }

  async #ask<T>(
    call: (signal: AbortSignal) => Promise<T | undefined>,
    client?: AbortSignal,
  ): Promise<T | undefined> {
    if (!this.isReached())
      throw new UpstreamFailure(`upstream ${this.url} is left alone: ${this.#lastError}`);
    this.#requests++;
    const askedAt = this.#host.now();
    const abort = new AbortController();
    this.#pending.add(abort);
    const signal = client === undefined ? abort.signal : AbortSignal.any([abort.signal, client]);
    try {
      const answer = await call(signal).catch((error) => {
        if (signal.aborted || !maybePassed(error)) throw error;
        return call(signal);
      });
      this.#answered(answer !== undefined, this.#host.now() - askedAt);
      return answer;
    } catch (error) {
      if (!signal.aborted) this.#failed(error, askedAt);
      throw error;
    } finally {
      this.#pending.delete(abort);
    }
  }

  #answered(found: boolean, latency: number): void {
    this.#breaker.succeeded();
    this.#lastError = undefined;
    if (found) this.#hits++;
    else this.#misses++;
    this.#latency = (this.#latency ?? latency) * (1 - LATENCY_WEIGHT) + latency * LATENCY_WEIGHT;
  }

  #failed(error: unknown, askedAt: number): void {
    const failure = error instanceof UpstreamFailure ? error : undefined;
    const status = failure?.status;
    const now = this.#host.now();
    this.#failures++;
    this.#lastError = messageOf(error);
    const opened = this.#breaker.failed({
      askedAt,
      // A 500 may be about one path; no answer, a refusal and "too many requests" are about the whole.
      whole: status === undefined || REFUSALS.has(status),
      waitMs: retryAfter(failure?.retryAfter ?? null, now),
    });
    const seconds = Math.ceil(((this.#breaker.retryAt ?? now) - now) / 1000);
    const hint = failure?.hint === undefined ? "" : `. ${failure.hint}`;
    this.#onError(opened ? `${this.#lastError}; left alone for ${seconds} s${hint}` : this.#lastError + hint);
    if (opened) this.#endPending(error);
  }

  #endPending(reason: unknown): void {
    for (const abort of this.#pending) abort.abort(reason);
  }
}

/** Of a key that a client trusts, what is no signature stops it, also beside a good one. */
function withoutMalformed(narinfo: string): string {
  return narinfo.replace(/^Sig: (.*)\n/gm, (line, signature: string) => (isSignature(signature) ? line : ""));
}

/** Whether asking again at once may help: a connection that was closed meanwhile, an error of a server. */
function maybePassed(error: unknown): boolean {
  if (!(error instanceof UpstreamFailure)) return true;
  return !error.timedOut && error.hint === undefined && (error.status === undefined || error.status >= 500);
}

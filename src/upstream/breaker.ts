/**
 * A circuit breaker: whether something that fails is to be asked at all, so that waiting for it is paid once and not
 * by every question. https://martinfowler.com/bliki/CircuitBreaker.html
 *
 * Closed, everything is asked. What fails opens it for a while. After that while it stays open until a probe succeeds,
 * which no question waits for.
 */
import type { Host } from "../host.ts";

/** How long to leave it alone, in milliseconds, when it opens for the n-th time (from 0) after a failure that took so long. */
export type Pause = (opened: number, tookMs: number) => number;

/** What is waited for at most because it asks so, in milliseconds. */
const MAX_WAIT_MS = 5 * 60_000;

/** From a second to five minutes. */
const DOUBLING: Pause = (opened) => Math.min(5 * 60_000, 1_000 * 2 ** Math.min(opened, 20));

/** Failures in a row that open it, where one alone may be about what was asked for. */
const MAX_IN_A_ROW = 3;

export interface BreakerFailure {
  /** In milliseconds since 1970, when what failed was asked. */
  readonly askedAt: number;
  /** Whether it says that the whole is broken, such as a refused connection. */
  readonly whole: boolean;
  /** The least time in ms to be left alone that it asked for; more than five minutes are not granted. */
  readonly waitMs?: number | undefined;
}

export class Breaker {
  readonly #host: Pick<Host, "now" | "random">;
  readonly #pause: Pause;
  /** Since the last success. */
  #inARow = 0;
  /** How often it has opened since the last success. */
  #opened = 0;
  #succeededAt = Number.NEGATIVE_INFINITY;
  #openedAt = Number.NEGATIVE_INFINITY;
  #retryAt: number | undefined;

  /** @param pause default: doubling, from a second to five minutes */
  constructor(host: Pick<Host, "now" | "random">, pause: Pause = DOUBLING) {
    this.#host = host;
    this.#pause = pause;
  }

  get isOpen(): boolean {
    return this.#retryAt !== undefined;
  }

  /** When a probe is due, in milliseconds since 1970; undefined while it is closed. */
  get retryAt(): number | undefined {
    return this.#retryAt;
  }

  succeeded(): void {
    this.#inARow = 0;
    this.#opened = 0;
    this.#succeededAt = this.#host.now();
    this.#retryAt = undefined;
  }

  /** A probe succeeded: questions are asked again. If they fail nevertheless the waits go on growing. */
  close(): void {
    this.#retryAt = undefined;
  }

  /** @returns whether it opened, or stays open for longer */
  failed({ askedAt, whole, waitMs = 0 }: BreakerFailure): boolean {
    // What was under way when it opened says nothing new.
    if (this.isOpen && askedAt < this.#openedAt) return false;
    this.#inARow++;
    // What has answered since then lives: closing the door would take more from clients than it saves them.
    const lives = this.#succeededAt > askedAt;
    if (!this.isOpen && this.#inARow < MAX_IN_A_ROW && (!whole || lives)) return false;
    const now = this.#host.now();
    const pause = this.#pause(this.#opened, now - askedAt);
    // Chance keeps many servers from coming back at the same moment.
    const wait = Math.max(pause * (0.5 + this.#host.random() / 2), Math.min(waitMs, MAX_WAIT_MS));
    this.#opened++;
    this.#openedAt = now;
    this.#retryAt = this.#openedAt + wait;
    return true;
  }
}

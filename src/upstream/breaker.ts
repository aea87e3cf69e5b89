/**
 * A circuit breaker: whether something that fails is to be asked at all, so that waiting for it is paid once and not
 * by every question. https://martinfowler.com/bliki/CircuitBreaker.html
 *
 * Closed, everything is asked. What fails opens it for a while that doubles each time. After that while it stays open
 * until a probe succeeds, which no question waits for.
 */
import type { Host } from "../host.ts";

const FIRST_WAIT_MS = 1_000;
const MAX_WAIT_MS = 5 * 60_000;

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
  /** Since the last success. */
  #inARow = 0;
  /** How often it has opened since the last success. */
  #opened = 0;
  #succeededAt = Number.NEGATIVE_INFINITY;
  #openedAt = Number.NEGATIVE_INFINITY;
  #retryAt: number | undefined;

  constructor(host: Pick<Host, "now" | "random">) {
    this.#host = host;
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
    const grown = Math.min(MAX_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(this.#opened, 20));
    // Chance keeps many servers from coming back at the same moment.
    const wait = Math.max(grown * (0.5 + this.#host.random() / 2), Math.min(waitMs, MAX_WAIT_MS));
    this.#opened++;
    this.#openedAt = this.#host.now();
    this.#retryAt = this.#openedAt + wait;
    return true;
  }
}

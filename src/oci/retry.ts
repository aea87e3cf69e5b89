/**
 * The one place that knows what is worth another try, how long to wait, and when to give up.
 *
 * Nothing here bounds a whole transfer: only waiting for an answer and standing still do (a total time-out
 * cuts long downloads on slow lines).
 */
import { connectionProblem, connectionReason, PROXY_CODE, systemCause } from "../connection.ts";
import { NixcacheError, systemCode } from "../errors.ts";
import type { Host } from "../host.ts";
import { throwIfAborted } from "./network.ts";

export interface RetryPolicy {
  /** Tries in all, the first one included. */
  readonly attempts: number;
  /** Tries when nobody listens there, or the host has no address: waiting rarely mends that. */
  readonly refusedAttempts: number;
  /** Tries when no answer came in time: each one takes that long. */
  readonly lateAttempts: number;
  /** Tries for an answer that is complete and wrong, such as bytes of another digest. */
  readonly damagedAttempts: number;
  /** Tries for an answer of 5xx that names no time to wait. */
  readonly faultAttempts: number;
  /** The first wait in ms; each further one doubles. Never waits less. */
  readonly floorMs: number;
  /** Where doubling ends, in ms. What the other side asks for may be longer. */
  readonly capMs: number;
  /** The wait in ms after GitHub's secondary rate limit, which asks for "a few minutes" and names no number. */
  readonly secondaryLimitMs: number;
  /** All waits of one operation together, in ms; a wait that goes beyond it ends the operation at once. */
  readonly budgetMs: number;
  /** From sending a request without a body to the first byte of its answer, in ms. */
  readonly connectTimeoutMs: number;
  /** Without a single byte moved within a body, in ms. */
  readonly stallTimeoutMs: number;
  /**
   * From the last byte handed to the network to the answer, in ms. Long: some MiB are then still in buffers,
   * and registries copy the whole blob before they answer.
   */
  readonly answerTimeoutMs: number;
}

/** For commands that hours of work depend on: sits out a registry's minutes of rate limiting. */
export const PATIENT: RetryPolicy = {
  attempts: 8,
  refusedAttempts: 3,
  lateAttempts: Number.POSITIVE_INFINITY,
  damagedAttempts: 3,
  faultAttempts: 8,
  floorMs: 500,
  capMs: 60_000,
  secondaryLimitMs: 60_000,
  budgetMs: 15 * 60_000,
  connectTimeoutMs: 30_000,
  stallTimeoutMs: 120_000,
  answerTimeoutMs: 10 * 60_000,
};

/** For answering requests: a client waits, and has other sources to go to. */
export const BRISK: RetryPolicy = {
  attempts: 3,
  refusedAttempts: 1,
  lateAttempts: 1,
  damagedAttempts: 2,
  faultAttempts: 3,
  floorMs: 500,
  capMs: 2_000,
  secondaryLimitMs: 60_000,
  budgetMs: 5_000,
  connectTimeoutMs: 10_000,
  stallTimeoutMs: 10_000,
  answerTimeoutMs: 30_000,
};

export type Verdict =
  | { readonly kind: "ok" | "absent" | "denied" | "fatal" }
  | { readonly kind: "retry"; readonly afterMs?: number };

/** One error of a registry's answer. https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#error-codes */
export interface RegistryError {
  /** Upper case, such as `BLOB_UNKNOWN`; empty when there was none. */
  readonly code: string;
  readonly message: string;
  readonly detail: unknown;
}

/** Errors in the body of an answer; empty for a body of any other shape. Never throws. */
export function parseErrors(body: string): RegistryError[] {
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch {
    return [];
  }
  const list = isRecord(json) && Array.isArray(json.errors) ? json.errors : [];
  return list.filter(isRecord).map((error) => ({
    code: typeof error.code === "string" ? error.code.toUpperCase() : "",
    message: typeof error.message === "string" ? error.message : "",
    detail: error.detail,
  }));
}

/**
 * What an answer means. Absent is 404 alone, and not even that where the body speaks of rights or of an
 * upload session that is gone (upload again from the start).
 * @param headers with lower-case look-up, as `Headers` has.
 * @param nowMs for a Retry-After that is a date.
 * @param secondaryLimitMs as in the policy.
 */
export function classify(
  status: number,
  headers: { get(name: string): string | null },
  body: string,
  nowMs: number,
  secondaryLimitMs: number = PATIENT.secondaryLimitMs,
): Verdict {
  if (status >= 200 && status < 400) return { kind: "ok" };
  const codes = new Set(parseErrors(body).map((error) => error.code));
  const stated = retryAfter(headers.get("retry-after"), nowMs);

  if (status === 429 || codes.has("TOOMANYREQUESTS")) return retry(stated ?? messageWait(body));
  if (status === 403 && /secondary rate limit|abuse detection|rate limit exceeded/i.test(body)) {
    return retry(stated ?? secondaryLimitMs);
  }
  if (status === 401 || status === 403) return { kind: "denied" };
  if (codes.has("BLOB_UPLOAD_UNKNOWN") || codes.has("BLOB_UPLOAD_INVALID")) return retry(stated);
  if (status === 404) return { kind: codes.has("UNAUTHORIZED") || codes.has("DENIED") ? "denied" : "absent" };
  if (status === 408 || status === 425) return retry(stated);
  if (status >= 500 && status !== 501 && status !== 505) return retry(stated);
  return { kind: "fatal" };
}

/** The wait in ms that a Retry-After header asks for: seconds, or a date. Undefined for anything else. */
export function retryAfter(value: string | null, nowMs: number): number | undefined {
  if (value === null) return undefined;
  const text = value.trim();
  if (/^[0-9]{1,9}(?:\.[0-9]{1,9})?$/.test(text)) return Math.ceil(Number(text) * 1000);
  const date = /^[A-Za-z]{3}/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs);
}

const UNIT_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/**
 * The wait in ms inside GHCR's `retry-after: 880.092µs, allowed: 44000/minute`: a duration as Go prints it.
 */
export function messageWait(body: string): number | undefined {
  const found = /retry-after:\s*((?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ns|us|µs|μs|ms|s|m|h))+)/i.exec(body)?.[1];
  if (found === undefined) return undefined;
  let ms = 0;
  for (const [, amount, unit] of found.matchAll(/([0-9.]+)(ns|us|µs|μs|ms|s|m|h)/gi)) {
    ms += Number(amount) * (UNIT_MS[unit?.toLowerCase() ?? ""] ?? 0);
  }
  return Math.ceil(ms);
}

/** The cause of a failure that is an answer, however often it was asked for; a network that fails has none. */
export class AnsweredWith extends Error {
  constructor(
    readonly status: number,
    /** What it asked for, in ms. */
    readonly afterMs?: number,
  ) {
    super(`HTTP status ${status}`);
  }
}

/** What was answered to the end, where that is why it failed. */
export function lastAnswer(error: unknown): AnsweredWith | undefined {
  return error instanceof Error && error.cause instanceof AnsweredWith ? error.cause : undefined;
}

/** Whether an answer says that the other side failed, of itself. */
export function isFault(status: number | undefined): boolean {
  return status !== undefined && status >= 500;
}

/** The policy with fewer tries: in all, and where the other side fails of itself. */
export function withAttempts(
  policy: RetryPolicy,
  attempts = policy.attempts,
  faultAttempts = policy.faultAttempts,
): RetryPolicy {
  return {
    ...policy,
    attempts: Math.min(policy.attempts, attempts),
    faultAttempts: Math.min(policy.faultAttempts, faultAttempts),
  };
}

/** What waiting for an answer, or for the next byte, ends with. */
export class Late extends Error {}

/** A failure that another try may mend. `withRetry` throws `failure` when it gives up. */
export class TransientFailure extends Error {
  constructor(
    readonly failure: NixcacheError,
    /** What the other side asked for, in ms. */
    readonly afterMs?: number,
    /**
     * Tries of their own: nobody listens or there is no such host, no answer in time, one that was complete and wrong,
     * or the other side failed of itself; and none but this one where it is final.
     */
    readonly few?: "refused" | "late" | "damaged" | "fault" | "final",
  ) {
    super(failure.message);
  }
}

/**
 * Turns what `fetch` or reading a body threw into a TransientFailure with the code `unreachable`. It is final where no
 * other try can mend it.
 * @param what such as `GET ghcr.io/owner/repo/manifests/x`.
 */
export function networkFailure(what: string, error: unknown): TransientFailure {
  const cause = systemCause(error);
  // Such as the file of certificates that cannot be read.
  if (cause instanceof NixcacheError) return new TransientFailure(cause, undefined, "final");
  const problem = connectionProblem(error);
  const code = systemCode(cause) ?? "";
  const refused = /ECONNREFUSED|ConnectionRefused|ENOTFOUND|DNS/i.test(code);
  const hint =
    problem?.hint ??
    (PROXY_CODE.test(code)
      ? "Look whether the proxy answers, or name what needs none in NO_PROXY."
      : refused
        ? "Check the host and port of the cache reference, and the network."
        : "Try again; if it lasts, check the network, proxy settings and the registry's status page.");
  const message = `${what}: ${connectionReason(error)}`;
  const failure = new NixcacheError("unreachable", message, { hint, cause: error });
  if (problem !== undefined) return new TransientFailure(failure, undefined, "final");
  const few = refused ? "refused" : cause instanceof Late ? "late" : undefined;
  return new TransientFailure(failure, undefined, few);
}

/**
 * Runs `attempt` until it succeeds, throws anything but a TransientFailure, or the policy's bounds are met.
 * Waits at least the floor, doubling, never less than asked for, and up to half as much again by chance, so
 * that uploads that were refused together do not come back together.
 */
export async function withRetry<T>(
  policy: RetryPolicy,
  network: Host & { readonly signal?: AbortSignal | undefined },
  attempt: (number: number) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  let waited = 0;
  for (let tries = 1; ; tries++) {
    throwIfAborted(signal, network.signal);
    try {
      return await attempt(tries);
    } catch (error) {
      if (!(error instanceof TransientFailure)) throw error;
      const limit = Math.min(policy.attempts, triesOf(error, policy));
      const wait = waitBefore(tries, policy, network.random(), error.afterMs);
      if (tries >= limit || waited + wait > policy.budgetMs) throw gaveUp(error, tries, waited, wait, policy);
      waited += wait;
      await network.sleep(wait, either(signal, network.signal)).catch((reason) => {
        throwIfAborted(signal, network.signal);
        throw reason;
      });
    }
  }
}

function triesOf({ few }: TransientFailure, policy: RetryPolicy): number {
  if (few === undefined) return policy.attempts;
  return few === "final" ? 1 : policy[`${few}Attempts`];
}

/** The wait in ms after try number `tries` (from 1). `random` is from 0 to below 1. */
export function waitBefore(tries: number, policy: RetryPolicy, random: number, askedMs = 0): number {
  const doubled = Math.min(policy.capMs, policy.floorMs * 2 ** Math.min(tries - 1, 30));
  const base = Math.max(doubled, askedMs, policy.floorMs);
  return Math.round(base * (1 + random / 2));
}

function gaveUp(
  error: TransientFailure,
  tries: number,
  waited: number,
  wait: number,
  policy: RetryPolicy,
): NixcacheError {
  const { failure } = error;
  if (tries === 1 && error.afterMs === undefined) return failure;
  const asked =
    waited + wait > policy.budgetMs && error.afterMs !== undefined
      ? `, and it asks to wait ${seconds(error.afterMs)} more`
      : "";
  const count = tries === 1 ? "1 try" : `${tries} tries`;
  return new NixcacheError(
    failure.code,
    `${failure.message} (${count} in ${seconds(waited)} of waiting${asked})`,
    {
      cause: failure.cause ?? failure,
      ...(failure.hint === undefined ? {} : { hint: failure.hint }),
    },
  );
}

/** Made only when there is something to wait for: signals joined to one that lives long are not free. */
function either(a: AbortSignal | undefined, b: AbortSignal | undefined): AbortSignal | undefined {
  return a === undefined || b === undefined ? (a ?? b) : AbortSignal.any([a, b]);
}

function seconds(ms: number): string {
  return `${Math.round(ms / 100) / 10} s`;
}

function retry(afterMs: number | undefined): Verdict {
  return afterMs === undefined ? { kind: "retry" } : { kind: "retry", afterMs };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Exchanges with a registry: tokens, what an answer means, and further tries. `send` is one try, `call` is `send`
 * under the policy.
 */
import { NixcacheError } from "../errors.ts";
import type { Access } from "./access.ts";
import { createAuthenticator } from "./auth.ts";
import { readBounded, sanitize, wordsIn } from "./body.ts";
import type { Credentials } from "./credentials.ts";
import { deniedError } from "./denied.ts";
import { createFollow, describeExchange, type Exchange, type Hop } from "./hop.ts";
import { type Network, throwIfAborted } from "./network.ts";
import type { RegistryReference } from "./reference.ts";
import { clockAheadMs } from "./registry-clock.ts";
import {
  AnsweredWith,
  classify,
  isFault,
  Late,
  networkFailure,
  parseErrors,
  type RegistryError,
  type RetryPolicy,
  TransientFailure,
  type Verdict,
  withAttempts,
  withRetry,
} from "./retry.ts";

export interface TransportOptions {
  readonly reference: RegistryReference;
  readonly credentials: () => Promise<Credentials | undefined>;
  readonly policy: RetryPolicy;
  readonly network: Network;
  readonly userAgent: string;
  /** `write` asks for push rights at once, also for reading: GHCR gives no pull token for a package to be made. */
  readonly access: "read" | "write";
  /** The repository that blobs are mounted from. */
  readonly mountFrom?: string | undefined;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** Where the answer came from, after redirects. */
  readonly url: URL;
  /** `absent` is a 404 that means so. */
  readonly kind: "ok" | "absent" | "denied" | "fatal";
  /** Of a failure, at most 64 KiB; empty for what succeeded. */
  readonly text: string;
  readonly errors: readonly RegistryError[];
  /** Of a success: to be read to its end, or `close`d. */
  readonly body: ReadableStream<Uint8Array> | null;
  /** Ends the exchange; safe to call at any time, also twice. */
  readonly close: () => void;
}

export interface WholeAnswer extends Answer {
  readonly bytes: Uint8Array;
}

export interface Transport {
  readonly origin: string;
  /** By how much the registry's clock is ahead of ours, in ms, by its last answer that told. */
  clockAheadMs(): number | undefined;
  send(exchange: Exchange): Promise<Answer>;
  /** `send` under the retry policy. */
  call(exchange: Exchange): Promise<Answer>;
  /**
   * `call`, with the whole body of a success read within the tries; the answer is closed afterwards. What
   * `decode` calls `corrupt` is fetched again: bytes may have been damaged on their way.
   * @throws `protocol` for a body of more than `limit` bytes; what `decode` throws.
   */
  callWhole<T>(exchange: Exchange, limit: number, decode: (answer: WholeAnswer) => T): Promise<T>;
}

const MAX_ERROR_BYTES = 64 * 1024;

const PAGE_HINT =
  "Something answers in the registry's place: look for a proxy, a firewall or the sign-in page of a network.";

export function createTransport(options: TransportOptions): Transport {
  const { reference, policy, network } = options;
  const origin = new URL(`${reference.scheme}://${reference.host}`).origin;
  const authenticator = createAuthenticator(options);
  const follow = createFollow({ origin, network, policy, userAgent: options.userAgent });
  const effective = (access: Access): Access =>
    access === "pull" && options.access === "write" ? "push" : access;

  let aheadMs: number | undefined;
  const observeClock = ({ url, response }: Hop) => {
    if (url.origin === origin) aheadMs = clockAheadMs(response.headers, network.now()) ?? aheadMs;
  };

  const send = async (exchange: Exchange): Promise<Answer> => {
    const access = effective(exchange.access);
    const own = exchange.url.origin === origin;
    const used = own ? await authenticator.ready(access) : undefined;
    let result = await follow(exchange, used);
    observeClock(result);
    if (own && result.response.status === 401 && result.url.origin === origin) {
      const challenge = result.response.headers.get("www-authenticate");
      result.close();
      result = await follow(exchange, await authenticator.renew(access, used, challenge));
      observeClock(result);
    }
    return judge(exchange, access, result);
  };

  const judge = async (
    exchange: Exchange,
    access: Access,
    { response, url, close }: Hop,
  ): Promise<Answer> => {
    const { status, headers } = response;
    const mayBePage = looksLikePage(exchange, response);
    const isRead = status >= 400 || mayBePage;
    const explanation = isRead ? await errorText(response, exchange, close) : "";
    // Some registries call an empty body a page, too.
    const isPage = mayBePage && (explanation === undefined || /^\s*</.test(explanation));
    const failed = status >= 400 || isPage;
    if (isRead) close();
    // Whether it means absence or a missing right is in the explanation (rule 1).
    if (explanation === undefined && status === 404) {
      throw networkFailure(describeExchange(exchange), new Error("got 404, and its explanation broke off"));
    }
    const text = explanation ?? "";
    const verdict: Verdict = isPage
      ? { kind: "fatal" }
      : classify(status, headers, text, network.now(), policy.secondaryLimitMs);
    const errors = failed ? parseErrors(text) : [];
    const isAccepted =
      exchange.accept?.includes(status) || errors.some(({ code }) => exchange.acceptCodes?.includes(code));
    if (verdict.kind === "retry" && !errors.some(({ code }) => exchange.acceptCodes?.includes(code))) {
      const failure = new NixcacheError(
        "unreachable",
        `${describeExchange(exchange)}: got ${status}${said(errors, text)}`,
        {
          hint: "Try again later; the registry's status page or its rate limits may say more.",
          cause: new AnsweredWith(status, verdict.afterMs),
        },
      );
      throw new TransientFailure(
        failure,
        verdict.afterMs,
        isFault(status) && verdict.afterMs === undefined ? "fault" : undefined,
      );
    }
    if (verdict.kind === "denied" && url.origin !== origin) {
      // A signed link that has expired: the registry makes a new one.
      throw new TransientFailure(
        new NixcacheError(
          "unreachable",
          `${describeExchange(exchange)}: ${url.host}, where it redirects to, answered ${status}`,
          { cause: new AnsweredWith(status) },
        ),
      );
    }
    const answer: Answer = {
      status,
      headers,
      url,
      kind: verdict.kind === "retry" ? "fatal" : verdict.kind,
      text,
      errors,
      body: isRead ? null : (response.body ?? null),
      close,
    };
    if (verdict.kind === "ok" || isAccepted) return answer;
    if (verdict.kind === "absent") return answer;
    if (verdict.kind === "denied") {
      const hasCredentials = authenticator.hasCredentials() ?? false;
      throw deniedError({ reference, access, hasCredentials, status, detail: text, at: "registry" });
    }
    throw unexpected(describeExchange(exchange), answer, isPage ? PAGE_HINT : undefined);
  };

  /** The text of a failure. Undefined when it broke off or stood still; empty when it is too long to be a registry's. */
  const errorText = async (
    response: Response,
    exchange: Exchange,
    close: () => void,
  ): Promise<string | undefined> => {
    const stop = network.timer(policy.connectTimeoutMs, close);
    try {
      return new TextDecoder().decode(
        await readBounded(response.body, MAX_ERROR_BYTES, describeExchange(exchange)),
      );
    } catch (error) {
      return error instanceof NixcacheError ? "" : undefined;
    } finally {
      stop();
    }
  };

  const readWhole = async (exchange: Exchange, limit: number): Promise<WholeAnswer> => {
    const answer = await send(exchange);
    let late = false;
    // Small bodies: the time that a stall may take is enough for all of one.
    const stop = network.timer(policy.stallTimeoutMs, () => {
      late = true;
      answer.close();
    });
    try {
      const bytes = await readBounded(answer.body, limit, describeExchange(exchange));
      const length = lengthOf(answer);
      if (late || (length !== undefined && answer.body !== null && length !== bytes.length)) {
        throw new Error("the answer was cut short");
      }
      return { ...answer, bytes };
    } catch (error) {
      if (error instanceof NixcacheError) throw error;
      throwIfAborted(exchange.signal, network.signal);
      const cause = late ? new Late(`no complete answer within ${policy.stallTimeoutMs / 1000} s`) : error;
      throw networkFailure(describeExchange(exchange), cause);
    } finally {
      stop();
      answer.close();
    }
  };

  return {
    origin,
    clockAheadMs: () => aheadMs,
    send,
    callWhole: (exchange, limit, decode) => {
      const attempt = async () => decodeWhole(await readWhole(exchange, limit), decode);
      return withRetry(
        withAttempts(policy, exchange.attempts, exchange.faultAttempts),
        network,
        attempt,
        exchange.signal,
      );
    },
    call: (exchange) =>
      withRetry(
        withAttempts(policy, exchange.attempts, exchange.faultAttempts),
        network,
        () => send(exchange),
        exchange.signal,
      ),
  };
}

/** Whether a success says that it is a page for people. A blob's does not count: blobs are checked by their digests. */
function looksLikePage({ method, url }: Exchange, { ok, headers }: Response): boolean {
  const isBlob = method === "GET" && /\/blobs\/[^/]+$/.test(url.pathname);
  return ok && method !== "HEAD" && !isBlob && isPage({ headers });
}

/** Whether an answer says that it is a page for people. */
export function isPage({ headers }: { readonly headers: Headers }): boolean {
  return /^text\/html\b/i.test(headers.get("content-type") ?? "");
}

function decodeWhole<T>(answer: WholeAnswer, decode: (answer: WholeAnswer) => T): T {
  try {
    return decode(answer);
  } catch (error) {
    if (!(error instanceof NixcacheError) || error.code !== "corrupt") throw error;
    throw new TransientFailure(error, undefined, "damaged");
  }
}

/** The Content-Length of an answer, in bytes; undefined without a usable one. */
export function lengthOf({ headers }: { readonly headers: Headers }): number | undefined {
  const text = headers.get("content-length") ?? "";
  const length = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  return Number.isSafeInteger(length) ? length : undefined;
}

/** The error for an answer that the protocol does not foresee. */
export function unexpected(what: string, answer: Answer, hint?: string): NixcacheError {
  return new NixcacheError(
    "protocol",
    `${what}: got ${answer.status}${said(answer.errors, answer.text)}`,
    hint === undefined ? {} : { hint },
  );
}

function said(errors: readonly RegistryError[], text: string): string {
  const words = errors.map(({ code, message }) => [code, message].filter(Boolean).join(" ")).join("; ");
  const line = words === "" ? wordsIn(text) : sanitize(words);
  return line === "" ? "" : ` (${line})`;
}

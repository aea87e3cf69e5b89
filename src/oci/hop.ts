/**
 * One request over the network, redirects followed by hand: connecting, time-outs, and the head of the answer.
 * What the answer means, tokens and further tries are `transport.ts`'s.
 */
import { createFetch, type FetchOptions } from "ofetch";
import { messageOf, NixcacheError } from "../errors.ts";
import type { Access } from "./access.ts";
import { sanitize } from "./body.ts";
import { type Network, onAbort, throwIfAborted } from "./network.ts";
import { Late, networkFailure, type RetryPolicy } from "./retry.ts";

export interface Exchange {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "DELETE";
  readonly url: URL;
  readonly access: Access;
  readonly headers?: Readonly<Record<string, string>>;
  /** Made anew for every hop and every try. */
  readonly body?: (() => UploadBody) | undefined;
  /** Statuses that are handed back although they are failures; waits for another try come first. */
  readonly accept?: readonly number[];
  /** Codes of errors that are handed back although another try might help. */
  readonly acceptCodes?: readonly string[];
  /** Fewer tries than the policy has. */
  readonly attempts?: number | undefined;
  /** Fewer tries than the policy has for 5xx, of a request that there is another way for. */
  readonly faultAttempts?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface UploadBody {
  readonly content: Uint8Array | ReadableStream<Uint8Array>;
  readonly size: number;
  /** Of a stream: takes the function to call with the number of bytes whenever some were handed over. */
  readonly onMove?: (moved: (bytes: number) => void) => void;
}

/** The head of an answer, after redirects. */
export interface Hop {
  /** Its body is to be read to the end, or `close`d. */
  readonly response: Response;
  /** Where it came from. */
  readonly url: URL;
  /** Ends the exchange; safe to call at any time, also twice. */
  readonly close: () => void;
}

/**
 * ofetch as one plain exchange: tries, redirects and failures are ours to judge. fetch would unpack zstd without
 * holding back, so that a few KB fill the memory before they can be counted.
 */
export const RAW_EXCHANGE = {
  retry: false,
  redirect: "manual",
  ignoreResponseError: true,
  responseType: "stream",
  decompress: false,
} as const;

const MAX_HOPS = 5;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** `GET ghcr.io/path`, without the query, which may hold a signature. */
export function describeExchange({ method, url }: Pick<Exchange, "method" | "url">): string {
  return `${method} ${url.host}${url.pathname}`;
}

export interface FollowOptions {
  /** The registry's own: Authorization goes nowhere else. */
  readonly origin: string;
  readonly network: Network;
  readonly policy: RetryPolicy;
  readonly userAgent: string;
}

/** Sends one exchange. @throws a passing failure for what the network does, `protocol` for what it must not. */
export type Follow = (exchange: Exchange, authorization: string | undefined) => Promise<Hop>;

export function createFollow({ origin, network, policy, userAgent }: FollowOptions): Follow {
  const transfer = createFetch({ fetch: network.fetch as typeof fetch });

  /** One request to one address, from connecting to the headers of the answer. */
  const hop = async (exchange: Exchange, url: URL, authorization: string | undefined): Promise<Hop> => {
    throwIfAborted(exchange.signal, network.signal);
    const controller = new AbortController();
    const stopListening = onAbort([exchange.signal, network.signal], () => controller.abort());
    const upload = exchange.body?.();
    let late = "";
    let answered = false;
    let stopTimer = () => {};
    const limit = (ms: number, of: string) => {
      stopTimer();
      if (answered) return;
      stopTimer = network.timer(ms, () => {
        late = `${of} for ${ms / 1000} s`;
        controller.abort();
      });
    };
    if (upload === undefined) limit(policy.connectTimeoutMs, "no answer");
    else if (upload.content instanceof Uint8Array) limit(policy.answerTimeoutMs, "no answer");
    else {
      let left = upload.size;
      limit(policy.stallTimeoutMs, "the upload did not move");
      upload.onMove?.((bytes) => {
        left -= bytes;
        if (left > 0) limit(policy.stallTimeoutMs, "the upload did not move");
        else limit(policy.answerTimeoutMs, "no answer after the upload");
      });
    }
    const close = () => {
      stopListening();
      controller.abort();
    };
    try {
      const init: FetchOptions<"stream"> & { decompress: boolean } = {
        ...RAW_EXCHANGE,
        method: exchange.method,
        signal: controller.signal,
        headers: {
          "user-agent": userAgent,
          "accept-encoding": "identity",
          ...exchange.headers,
          ...(upload === undefined ? {} : { "content-length": String(upload.size) }),
          ...(authorization === undefined ? {} : { authorization }),
        },
        ...(upload === undefined ? {} : { body: upload.content as ReadableStream }),
      };
      const response = await transfer.raw(url.href, init);
      const encoding = response.headers.get("content-encoding") ?? "identity";
      if (encoding !== "identity" && response.ok) {
        throw new NixcacheError(
          "protocol",
          `${describeExchange({ ...exchange, url })}: got content encoding ${sanitize(encoding)}, expected none`,
        );
      }
      return { response, url, close };
    } catch (error) {
      close();
      if (error instanceof NixcacheError) throw error;
      throwIfAborted(exchange.signal, network.signal);
      throw networkFailure(describeExchange({ ...exchange, url }), late === "" ? error : new Late(late));
    } finally {
      answered = true;
      stopTimer();
    }
  };

  /** Follows redirects. Authorization goes to the registry's own origin only. */
  return async (exchange, authorization) => {
    let url = exchange.url;
    for (let hops = 0; ; hops++) {
      const result = await hop(exchange, url, url.origin === origin ? authorization : undefined);
      const { status, headers } = result.response;
      const location = headers.get("location");
      if (!REDIRECTS.has(status) || location === null) return result;
      // HEAD asks the registry itself: links to storage are signed for GET alone.
      if (exchange.method === "HEAD") return result;
      result.close();
      if (hops >= MAX_HOPS)
        throw new NixcacheError(
          "protocol",
          `${describeExchange(exchange)}: got more than ${MAX_HOPS} redirects`,
        );
      url = resolveLocation(url, location, describeExchange(exchange));
    }
  };
}

/**
 * The address that a Location header means.
 * @throws `protocol` when it is none, or would leave HTTPS.
 */
export function resolveLocation(base: URL, location: string, what: string): URL {
  let url: URL;
  try {
    url = new URL(location, base);
  } catch (cause) {
    throw new NixcacheError("protocol", `${what}: got a Location that is no URL (${messageOf(cause)})`, {
      cause,
    });
  }
  if (url.protocol !== "https:" && !(url.protocol === "http:" && base.protocol === "http:")) {
    throw new NixcacheError(
      "protocol",
      `${what}: got a Location from ${base.protocol} to ${url.protocol}, expected https:`,
      {
        hint: "Behind a proxy that ends TLS, let the registry write relative locations (distribution: http.relativeurls) or pass X-Forwarded-Proto.",
      },
    );
  }
  return url;
}

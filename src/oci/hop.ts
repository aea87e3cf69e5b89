/**
 * One request over the network, redirects followed by hand: connecting, time-outs, and the head of the answer.
 * What the answer means, tokens and further tries are `transport.ts`'s.
 */
import { createFetch, type FetchOptions } from "ofetch";
import { NixcacheError } from "../errors.ts";
import { follow, type Hop as OneHop, outward } from "../network/egress.ts";
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

/** The head of an answer, after redirects. Its body is to be read to the end, or `close`d. */
export interface Hop extends OneHop {
  /** Where it came from. */
  readonly url: URL;
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
  const transfer = createFetch({ fetch: outward(network, new URL(origin)) as typeof fetch });

  /** One request to one address, from connecting to the headers of the answer. */
  const hop = async (exchange: Exchange, url: URL, authorization: string | undefined): Promise<OneHop> => {
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
      return { response, close };
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

  /** Authorization goes to the registry's own origin only. */
  const own = (url: URL, authorization: string | undefined) =>
    url.origin === origin ? authorization : undefined;

  return async (exchange, authorization) => {
    const { url } = exchange;
    // HEAD asks the registry itself: links to storage are signed for GET alone.
    if (exchange.method === "HEAD") return { ...(await hop(exchange, url, own(url, authorization))), url };
    return follow(url, describeExchange(exchange), (next) => hop(exchange, next, own(next, authorization)));
  };
}

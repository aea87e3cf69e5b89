/**
 * Requests to GitHub's REST API: the token, its rate limits, and what it refuses.
 * https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api
 */
import { kept } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import { readBounded, sanitize } from "./body.ts";
import type { Credentials } from "./credentials.ts";
import { createFollow, describeExchange, type Exchange } from "./hop.ts";
import { parseJson } from "./manifest.ts";
import { type Network, throwIfAborted } from "./network.ts";
import {
  classify,
  networkFailure,
  type RetryPolicy,
  retryAfter,
  TransientFailure,
  withRetry,
} from "./retry.ts";
import type { CallOptions } from "./store.ts";

export interface GitHubApiOptions {
  /** Where it is, such as `https://api.github.com`. The token goes to this origin alone. */
  readonly api: URL;
  /** Those of the registry; the password is the token. Asked for once. */
  readonly credentials: () => Promise<Credentials | undefined>;
  readonly policy: RetryPolicy;
  readonly network: Network;
  readonly userAgent: string;
}

export interface GitHubAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly bytes: Uint8Array;
}

export interface GitHubApi {
  /** The address of a path, such as `/users/somebody`. */
  at(path: string): URL;
  /**
   * One request under the retry policy.
   * @throws Refused for what no other request would get past either: the token, its rights, the rate limit
   */
  call(method: "GET" | "DELETE", url: URL, options: CallOptions): Promise<GitHubAnswer>;
}

/** What GitHub does not allow, in words. */
export class Refused extends Error {
  constructor(
    reason: string,
    /** Whether every other request would be refused too. */
    readonly everything: boolean,
  ) {
    super(reason);
  }
}

/** https://docs.github.com/en/rest/about-the-rest-api/api-versions */
const API_VERSION = "2022-11-28";

/** 100 package versions are some 60 KiB, more where somebody has put hundreds of tags on one. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;

/** Of a failure, what is looked at. */
const MAX_TEXT_BYTES = 64 * 1024;

/** What deleting needs. */
export const RIGHTS =
  "the token must be a personal one with the scope delete:packages, or in GitHub Actions the repository must " +
  'have the role Admin under "Manage Actions access" in the package\'s settings';

/** Worth another try once the rate limit allows. */
class LimitedFailure extends TransientFailure {}

export function createGitHubApi(options: GitHubApiOptions): GitHubApi {
  const { api, policy, network } = options;
  const follow = createFollow({ ...options, origin: api.origin });
  const token = kept(async () => {
    const found = await options.credentials();
    return found?.kind === "password" ? found.password : undefined;
  });

  const send = async (exchange: Exchange): Promise<GitHubAnswer> => {
    const secret = await token();
    if (secret === undefined) throw new Refused("no token for GitHub was found; set GITHUB_TOKEN", true);
    const { response, close } = await follow(exchange, `Bearer ${secret}`);
    const { status, headers } = response;
    try {
      const bytes = await readBounded(response.body, MAX_ANSWER_BYTES, describeExchange(exchange));
      return { status, headers, bytes };
    } catch (error) {
      if (error instanceof NixcacheError) throw error;
      throwIfAborted(exchange.signal, network.signal);
      throw networkFailure(describeExchange(exchange), error);
    } finally {
      close();
    }
  };

  /** @throws what is worth another try, and what is refused for every request. */
  const judge = (exchange: Exchange, answer: GitHubAnswer): GitHubAnswer => {
    const { status, headers } = answer;
    const what = `${describeExchange(exchange)}: got ${status}${saidBy(answer)}`;
    const limitedMs = rateLimit(answer, network.now(), policy.secondaryLimitMs);
    if (limitedMs !== undefined) {
      const until = new Date(network.now() + limitedMs).toISOString();
      // Whoever goes on asking is locked out for longer.
      if (limitedMs > policy.budgetMs)
        throw new Refused(`GitHub's rate limit is used up until ${until}; the next run goes on`, true);
      throw new LimitedFailure(new NixcacheError("unreachable", what), limitedMs);
    }
    if (classify(status, headers, textOf(answer), network.now()).kind === "retry") {
      const afterMs = retryAfter(headers.get("retry-after"), network.now());
      throw new TransientFailure(new NixcacheError("unreachable", what), afterMs);
    }
    if (status === 401) throw new Refused(`GitHub does not take the token (${what})`, true);
    if (status === 403) throw new Refused(`GitHub does not allow it (${what}); ${RIGHTS}`, true);
    return answer;
  };

  return {
    at: (path) => new URL(api.href.replace(/\/$/, "") + path),
    async call(method, url, { signal }) {
      const headers = { accept: "application/vnd.github+json", "x-github-api-version": API_VERSION };
      const exchange: Exchange = { method, url, access: "delete", headers, signal };
      let isLimited = false;
      const attempt = async () => {
        isLimited = false;
        try {
          return judge(exchange, await send(exchange));
        } catch (error) {
          isLimited = error instanceof LimitedFailure;
          throw error;
        }
      };
      try {
        return await withRetry(policy, network, attempt, signal);
      } catch (error) {
        if (!isLimited || !(error instanceof NixcacheError)) throw error;
        throw new Refused(`GitHub's rate limit is used up (${error.message}); the next run goes on`, true);
      }
    },
  };
}

/**
 * How long to wait, in ms, when an answer says that there were too many requests.
 * https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit
 */
function rateLimit(answer: GitHubAnswer, nowMs: number, secondaryLimitMs: number): number | undefined {
  const { status, headers } = answer;
  if (status !== 403 && status !== 429) return undefined;
  const stated = retryAfter(headers.get("retry-after"), nowMs);
  if (stated !== undefined) return stated;
  const reset = Number(headers.get("x-ratelimit-reset") ?? Number.NaN) * 1000;
  // By GitHub's own clock, where it tells: ours may be off.
  const clock = Date.parse(headers.get("date") ?? "");
  if (headers.get("x-ratelimit-remaining") === "0" && Number.isFinite(reset))
    return Math.max(0, reset - (Number.isNaN(clock) ? nowMs : clock));
  return status === 429 || /rate limit|abuse detection/i.test(textOf(answer)) ? secondaryLimitMs : undefined;
}

/** The JSON of a success. @throws `protocol` */
export function expectJson(url: URL, answer: GitHubAnswer): unknown {
  const what = describeExchange({ method: "GET", url });
  if (answer.status === 200) return parseJson(answer.bytes, what);
  throw new NixcacheError("protocol", `${what}: got ${answer.status}${saidBy(answer)}, expected 200`);
}

/** The message in an answer, for the end of a sentence. */
export function saidBy(answer: GitHubAnswer): string {
  if (answer.status < 400) return "";
  try {
    const json = JSON.parse(textOf(answer)) as { message?: unknown } | null;
    const message = typeof json?.message === "string" ? sanitize(json.message) : "";
    return message === "" ? "" : ` (${message})`;
  } catch {
    return "";
  }
}

function textOf({ bytes }: GitHubAnswer): string {
  return new TextDecoder().decode(bytes.subarray(0, MAX_TEXT_BYTES));
}

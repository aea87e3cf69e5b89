/**
 * An upstream: another binary cache, such as https://cache.nixos.org, over Nix's HTTP protocol.
 *
 * Nix takes 401, 403, 404, 407 and 410 for "absent" and so do we; anything else that is not 200 is a failure
 * of the upstream, which is not an answer.
 */
import { messageOf, NixcacheError } from "../errors.ts";

export interface Upstream {
  /** Without a trailing slash. */
  readonly url: string;
  /** The text of a narinfo; undefined when the upstream says that it has none. @throws `unreachable` */
  narinfo(storeHash: string, signal?: AbortSignal): Promise<string | undefined>;
  /**
   * A GET or HEAD of any path of the upstream, such as `nar/….nar.xz`; undefined when it is absent. The body
   * streams as it is. @throws `unreachable`
   */
  request(path: string, init: UpstreamRequest): Promise<Response | undefined>;
}

export interface UpstreamRequest {
  readonly method: "GET" | "HEAD";
  readonly signal?: AbortSignal | undefined;
}

export type Fetch = (url: string, init: RequestInit & { decompress?: boolean }) => Promise<Response>;

export interface UpstreamOptions {
  readonly fetch: Fetch;
  /** From the request to the head of the answer, in milliseconds. */
  readonly timeoutMs: number;
  readonly userAgent: string;
}

const ABSENT = new Set([401, 403, 404, 407, 410]);

/** A narinfo is a few KiB; more than this is something else. */
const MAX_NARINFO_BYTES = 1024 * 1024;

/** @throws `usage` when `url` is no http or https URL. */
export function openUpstream(url: string, options: UpstreamOptions): Upstream {
  const base = parseUpstreamUrl(url);
  const { fetch, timeoutMs, userAgent } = options;

  async function ask(
    path: string,
    init: UpstreamRequest,
    decompress: boolean,
  ): Promise<Response | undefined> {
    const target = `${base}/${path}`;
    const timeout = new AbortController();
    const timer = setTimeout(() => timeout.abort(new Error(`no answer in ${timeoutMs} ms`)), timeoutMs);
    let response: Response;
    try {
      response = await fetch(target, {
        method: init.method,
        signal: init.signal ? AbortSignal.any([init.signal, timeout.signal]) : timeout.signal,
        decompress,
        headers: { "user-agent": userAgent },
      });
    } catch (cause) {
      throw new NixcacheError("unreachable", `${init.method} ${target}: ${messageOf(cause)}`, { cause });
    } finally {
      clearTimeout(timer);
    }
    if (response.ok) return response;
    await response.body?.cancel();
    if (ABSENT.has(response.status)) return undefined;
    throw new NixcacheError("unreachable", `${init.method} ${target}: got status ${response.status}`);
  }

  return {
    url: base,
    request: (path, init) => ask(path, init, false),
    async narinfo(storeHash, signal) {
      const response = await ask(`${storeHash}.narinfo`, { method: "GET", signal }, true);
      if (response === undefined) return undefined;
      const length = Number(response.headers.get("content-length") ?? 0);
      const text = length > MAX_NARINFO_BYTES ? "" : await response.text();
      if (text.length > 0 && text.length <= MAX_NARINFO_BYTES) return text;
      throw new NixcacheError(
        "unreachable",
        `${base}/${storeHash}.narinfo: got something that is no narinfo`,
      );
    },
  };
}

function parseUpstreamUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (
    url &&
    (url.protocol === "http:" || url.protocol === "https:") &&
    url.search === "" &&
    url.hash === ""
  ) {
    return url.href.replace(/\/+$/, "");
  }
  throw new NixcacheError(
    "usage",
    `upstream: got ${JSON.stringify(text)}, expected a URL such as https://cache.nixos.org`,
  );
}

/**
 * An upstream: another binary cache, such as https://cache.nixos.org, over Nix's HTTP protocol.
 *
 * Nix takes 401, 403, 404, 407 and 410 for "absent". So do we, but for 401, 403 and 407 only while the cache can be
 * read at all: S3 answers 403 for what is missing, and a cache that wants a password for everything. Anything else that
 * is not 200 is a failure of the upstream, which is not an answer.
 */
import { connectionProblem, connectionReason } from "../connection.ts";
import { messageOf, NixcacheError, preview, withoutUser } from "../errors.ts";
import { parseNarInfo } from "../nar/narinfo.ts";
import type { PublicKey } from "../nar/signing-key.ts";
import { storeHashOf } from "../nar/store-path.ts";
import { follow, type Hop, outward, type Web } from "../network/egress.ts";
import { encodingOf, readText, watched } from "./body.ts";
import { CACHE_INFO_PATH, MAX_CACHE_INFO_BYTES, parseCacheInfo } from "./cache-info.ts";
import { UpstreamFailure } from "./failure.ts";

export interface Upstream {
  /** Without a trailing slash, user and password. */
  readonly url: string;
  /** As the person has given it, by `?priority=`; lower is asked first. */
  readonly priority?: number | undefined;
  /** By which it signs; none where they are not known. */
  readonly keys?: readonly PublicKey[] | undefined;
  /**
   * The text of a narinfo; undefined when the upstream says that it has none.
   * @param headers sent with the request
   * @throws `unreachable`, also for an answer that is no narinfo of that path: a page to sign in at must neither
   * reach a client, which it would stop, nor count as having the path.
   */
  narinfo(
    storeHash: string,
    signal?: AbortSignal,
    headers?: Readonly<Record<string, string>>,
  ): Promise<string | undefined>;
  /**
   * A GET or HEAD of any path of the upstream, such as `nar/….nar.xz`; undefined when it is absent. The status is
   * 200, or for a request with a Range also 206 or 416. The body streams as it is, and errors when it breaks off or
   * stalls. @throws `unreachable`
   */
  request(path: string, init: UpstreamRequest): Promise<Response | undefined>;
}

export interface UpstreamRequest {
  readonly method: "GET" | "HEAD";
  readonly signal?: AbortSignal | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  /** Whether the answer may have a Content-Encoding. Nix undoes none on a NAR. */
  readonly encoded?: boolean;
  /** Told when the upstream breaks the body off, or stalls. */
  readonly onBroken?: ((failure: UpstreamFailure) => void) | undefined;
}

export interface UpstreamOptions {
  readonly web: Web;
  /** From the request to the head of the answer, and to the last byte of a narinfo, in milliseconds. */
  readonly timeoutMs: number;
  /** From one byte of a body to the next, in milliseconds. */
  readonly stallMs: number;
  readonly userAgent: string;
  /** By which it signs. Default: not known. */
  readonly keys?: readonly PublicKey[] | undefined;
}

const ABSENT = new Set([404, 410]);

/** "Absent" where the cache can be read, "you may not" where it cannot. */
const DENIED = new Set([401, 403, 407]);

/** How long a cache that could be read counts as one that can be, in milliseconds. */
const READABLE_MS = 5 * 60_000;

/** A narinfo is a few KiB; more than this is something else. */
const MAX_NARINFO_BYTES = 1024 * 1024;

/** @throws `usage` when `url` is no http or https URL. */
export function openUpstream(url: string, options: UpstreamOptions): Upstream {
  const { base, priority, authorization } = parseUpstreamUrl(url);
  const { web, timeoutMs, stallMs, userAgent, keys } = options;
  const home = new URL(base);
  const send = outward(web, home);
  /** Whether its nix-cache-info could be read, and until when that is believed. */
  let readable: { readonly answer: Promise<boolean>; until: number } | undefined;

  /** @throws `unreachable` when its nix-cache-info cannot be had */
  function isReadable(): Promise<boolean> {
    if (readable !== undefined && performance.now() < readable.until) return readable.answer;
    const asked = { answer: ask(CACHE_INFO_PATH, { method: "GET" }).then(isCacheInfo), until: Infinity };
    readable = asked;
    asked.answer.then(
      (yes) => {
        asked.until = yes ? performance.now() + READABLE_MS : 0;
      },
      () => {
        asked.until = 0;
      },
    );
    return asked.answer;
  }

  async function ask(path: string, init: UpstreamRequest): Promise<Response | undefined> {
    const what = `${init.method} ${base}/${path}`;
    const timeout = new AbortController();
    const timer = setTimeout(() => timeout.abort(new Error(`no answer in ${timeoutMs} ms`)), timeoutMs);
    const signal = init.signal ? AbortSignal.any([init.signal, timeout.signal]) : timeout.signal;
    let redirected: number | undefined;
    const hop = async (url: URL): Promise<Hop> => {
      const headers = { "user-agent": userAgent, "accept-encoding": "identity", ...init.headers };
      const asked = {
        ...{ method: init.method, signal, decompress: false },
        // The password is for the upstream alone.
        headers: url.origin === home.origin ? { ...headers, ...authorization } : headers,
      };
      const response = await send(url.href, asked);
      if (response.headers.has("location")) redirected = response.status;
      return { response, close: () => void response.body?.cancel().catch(() => {}) };
    };
    let response: Response;
    try {
      response = (await follow(new URL(`${base}/${path}`), what, hop)).response;
    } catch (cause) {
      // Where it leads says nothing against the connection.
      if (cause instanceof NixcacheError && redirected !== undefined)
        throw new UpstreamFailure(cause.message, { status: redirected, hint: cause.hint, cause });
      const timedOut = timeout.signal.aborted;
      const reason = timedOut ? messageOf(timeout.signal.reason) : connectionReason(cause);
      const hint = timedOut ? undefined : (connectionProblem(cause)?.hint ?? hintOf(cause));
      throw new UpstreamFailure(`${what}: ${reason}`, { timedOut, hint, cause });
    } finally {
      clearTimeout(timer);
    }
    const { status, headers } = response;
    const ranged = init.headers?.range !== undefined;
    if (status === 200 || (ranged && (status === 206 || status === 416))) return response;
    await response.body?.cancel();
    if (ABSENT.has(status)) return undefined;
    if (DENIED.has(status) && path !== CACHE_INFO_PATH && (await isReadable())) return undefined;
    const retryAfter = headers.get("retry-after");
    throw new UpstreamFailure(`${what}: got status ${status}`, { status, retryAfter });
  }

  return {
    url: base,
    priority,
    keys,
    async request(path, init) {
      const response = await ask(path, init);
      if (response === undefined) return undefined;
      const { status, headers, body } = response;
      const what = `${init.method} ${base}/${path}`;
      const encoding = encodingOf(response);
      if (encoding !== undefined && !init.encoded) {
        await body?.cancel();
        const message = `${what}: got content encoding ${preview(encoding)}, expected none`;
        throw new UpstreamFailure(message, { status });
      }
      // A page to sign in at, say. Nix would take it for the NAR and end the build.
      if (!init.encoded && isPage(headers)) {
        await body?.cancel();
        throw new UpstreamFailure(`${what}: got a page (text/html), expected a file`, { status });
      }
      if (body === null || init.method === "HEAD") return response;
      const length = lengthOf(headers);
      const { signal, onBroken } = init;
      return new Response(watched(body, { what, stallMs, length, signal, onBroken }), { status, headers });
    },
    async narinfo(storeHash, signal, headers = {}) {
      const target = `${base}/${storeHash}.narinfo`;
      const late = new AbortController();
      const timer = setTimeout(() => late.abort(new Error(`no narinfo in ${timeoutMs} ms`)), timeoutMs);
      try {
        const response = await ask(`${storeHash}.narinfo`, {
          method: "GET",
          signal: signal ? AbortSignal.any([signal, late.signal]) : late.signal,
          headers,
        });
        if (response === undefined) return undefined;
        const text = await readText(response, MAX_NARINFO_BYTES);
        const { storePath } = parseNarInfo(text, target);
        if (storeHashOf(storePath) !== storeHash) throw new Error(`got the narinfo of ${storePath}`);
        return text;
      } catch (cause) {
        if (cause instanceof UpstreamFailure) throw cause;
        const timedOut = late.signal.aborted;
        // What came whole but is wrong says nothing against the connection.
        const status = cause instanceof NixcacheError ? 200 : undefined;
        const message = `GET ${target}: got no narinfo: ${messageOf(timedOut ? late.signal.reason : cause)}`;
        throw new UpstreamFailure(message, { status, timedOut, cause });
      } finally {
        clearTimeout(timer);
      }
    },
  };
}

/** Whether an answer is that of a cache, and not a page to sign in at. */
async function isCacheInfo(response: Response | undefined): Promise<boolean> {
  if (response === undefined) return false;
  try {
    parseCacheInfo(await readText(response, MAX_CACHE_INFO_BYTES));
    return true;
  } catch (error) {
    if (error instanceof NixcacheError) return false;
    throw error;
  }
}

/** Such as of a file of certificates that cannot be read. */
function hintOf(cause: unknown): string | undefined {
  return cause instanceof NixcacheError ? cause.hint : undefined;
}

function isPage(headers: Headers): boolean {
  return /^text\/html\b/i.test(headers.get("content-type") ?? "");
}

/** The Content-Length, where there is one that can be counted. */
function lengthOf(headers: Headers): number | undefined {
  const length = headers.get("content-length") ?? "";
  return /^\d{1,15}$/.test(length) ? Number(length) : undefined;
}

interface UpstreamUrl {
  readonly base: string;
  readonly priority: number | undefined;
  readonly authorization: Record<string, string>;
}

/**
 * User and password of the URL go into a header: the URL itself stands in messages and in the status. Of Nix's settings
 * in the query a priority is one for us, too.
 */
function parseUpstreamUrl(text: string): UpstreamUrl {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const [, given] = /^\?priority=(\d{1,9})$/.exec(url?.search ?? "") ?? [];
  if (
    url &&
    (url.protocol === "http:" || url.protocol === "https:") &&
    (url.search === "" || given !== undefined) &&
    url.hash === ""
  ) {
    url.search = "";
    const user = `${unescaped(url.username)}:${unescaped(url.password)}`;
    url.username = "";
    url.password = "";
    const base = url.href.replace(/\/+$/, "");
    return {
      base,
      priority: given === undefined ? undefined : Number(given),
      authorization: user === ":" ? {} : { authorization: `Basic ${Buffer.from(user).toString("base64")}` },
    };
  }
  throw new NixcacheError(
    "usage",
    `upstream: got ${preview(withoutUser(text), 300)}, expected a URL such as https://cache.nixos.org`,
  );
}

/** Escapes decoded; as it is where they are none, which URLs allow. */
function unescaped(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

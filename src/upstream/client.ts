/**
 * An upstream: another binary cache, such as https://cache.nixos.org, over Nix's HTTP protocol.
 *
 * Nix takes 401, 403, 404, 407 and 410 for "absent" and so do we; anything else that is not 200 is a failure
 * of the upstream, which is not an answer.
 */
import { messageOf, NixcacheError, preview, withoutUser } from "../errors.ts";
import { parseNarInfo } from "../nar/narinfo.ts";
import { storeHashOf } from "../nar/store-path.ts";

export interface Upstream {
  /** Without a trailing slash. */
  readonly url: string;
  /**
   * The text of a narinfo; undefined when the upstream says that it has none.
   * @throws `unreachable`, also for an answer that is no narinfo of that path: a page to sign in at must neither
   * reach a client, which it would stop, nor count as having the path.
   */
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
  /** From the request to the head of the answer, and to the last byte of a narinfo, in milliseconds. */
  readonly timeoutMs: number;
  readonly userAgent: string;
}

const ABSENT = new Set([401, 403, 404, 407, 410]);

/** A narinfo is a few KiB; more than this is something else. */
const MAX_NARINFO_BYTES = 1024 * 1024;

/**
 * Some caches keep their narinfos compressed. Unpacked here and not by fetch, which unpacks zstd without holding
 * back: 19 KB made 400 MiB.
 */
const ENCODINGS: Readonly<Record<string, string>> = {
  gzip: "gzip",
  "x-gzip": "gzip",
  deflate: "deflate",
  br: "brotli",
  zstd: "zstd",
};

/** @throws `usage` when `url` is no http or https URL. */
export function openUpstream(url: string, options: UpstreamOptions): Upstream {
  const { base, authorization } = parseUpstreamUrl(url);
  const { fetch, timeoutMs, userAgent } = options;

  async function ask(path: string, init: UpstreamRequest): Promise<Response | undefined> {
    const target = `${base}/${path}`;
    const timeout = new AbortController();
    const timer = setTimeout(() => timeout.abort(new Error(`no answer in ${timeoutMs} ms`)), timeoutMs);
    let response: Response;
    try {
      response = await fetch(target, {
        method: init.method,
        signal: init.signal ? AbortSignal.any([init.signal, timeout.signal]) : timeout.signal,
        decompress: false,
        headers: { "user-agent": userAgent, "accept-encoding": "identity", ...authorization },
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
    async request(path, init) {
      const response = await ask(path, init);
      const encoding = response && encodingOf(response);
      if (encoding === undefined) return response;
      await response?.body?.cancel();
      throw new NixcacheError(
        "unreachable",
        `${init.method} ${base}/${path}: got content encoding ${preview(encoding)}, expected none`,
      );
    },
    async narinfo(storeHash, signal) {
      const target = `${base}/${storeHash}.narinfo`;
      const late = new AbortController();
      const timer = setTimeout(() => late.abort(new Error(`no narinfo in ${timeoutMs} ms`)), timeoutMs);
      try {
        const response = await ask(`${storeHash}.narinfo`, {
          method: "GET",
          signal: signal ? AbortSignal.any([signal, late.signal]) : late.signal,
        });
        if (response === undefined) return undefined;
        const text = await readText(response);
        const { storePath } = parseNarInfo(text, target);
        if (storeHashOf(storePath) !== storeHash) throw new Error(`got the narinfo of ${storePath}`);
        return text;
      } catch (cause) {
        if (cause instanceof NixcacheError && cause.code === "unreachable") throw cause;
        const why = late.signal.aborted ? late.signal.reason : cause;
        throw new NixcacheError("unreachable", `GET ${target}: got no narinfo: ${messageOf(why)}`, { cause });
      } finally {
        clearTimeout(timer);
      }
    },
  };
}

/** Undefined when the body is as it is. */
function encodingOf(response: Response): string | undefined {
  const encoding = response.headers.get("content-encoding")?.trim().toLowerCase() ?? "";
  return encoding === "" || encoding === "identity" ? undefined : encoding;
}

/** The body of a narinfo, unpacked, of at most MAX_NARINFO_BYTES whatever its header says. */
async function readText(response: Response): Promise<string> {
  const encoding = encodingOf(response);
  const format =
    encoding === undefined ? undefined : Object.hasOwn(ENCODINGS, encoding) ? ENCODINGS[encoding] : undefined;
  if (encoding !== undefined && format === undefined) {
    await response.body?.cancel();
    throw new Error(`unknown content encoding ${preview(encoding)}`);
  }
  let body: ReadableStream<Uint8Array> | null = response.body;
  if (body !== null && format !== undefined) {
    const unpack = new DecompressionStream(format as Bun.CompressionFormat);
    body = body.pipeThrough(unpack as ReadableWritablePair<Uint8Array, Uint8Array>);
  }
  const chunks: Uint8Array[] = [];
  let size = 0;
  // Leaving the loop cancels the body.
  for await (const chunk of body ?? []) {
    size += chunk.length;
    if (size > MAX_NARINFO_BYTES) throw new Error(`more than ${MAX_NARINFO_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

/** User and password of the URL go into a header: the URL itself stands in messages and in the status. */
function parseUpstreamUrl(text: string): { base: string; authorization: Record<string, string> } {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (
    url &&
    (url.protocol === "http:" || url.protocol === "https:") &&
    url.search === "" &&
    url.hash === ""
  ) {
    const user = `${unescaped(url.username)}:${unescaped(url.password)}`;
    url.username = "";
    url.password = "";
    const base = url.href.replace(/\/+$/, "");
    return {
      base,
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

/**
 * The server as a function from request to response. It knows neither ports nor signals.
 *
 * Which status Nix makes what of decides every failure here (rule 8): a narinfo is 200 or 404, since a 5xx
 * aborts the client's build; a NAR that cannot be had is a 5xx, since the client then asks the next
 * substituter; and `/nix-cache-info` is 503 until an index was loaded, since the client then skips us.
 */
import { messageOf } from "../errors.ts";
import { isBase32 } from "../nar/base32.ts";
import { parseNarInfo } from "../nar/narinfo.ts";
import { type NarFileSource, narFileSize } from "../protocol/nar-file.ts";
import type { Upstream } from "../upstream/client.ts";
import type { ServedCache } from "./cache.ts";
import type { MemoryBudget } from "./memory.ts";
import { isBuffered, readNar, streamNar } from "./nar.ts";
import { type Route, route } from "./route.ts";
import { upstreamNarinfo, upstreamRequest } from "./upstreams.ts";

export interface HandlerOptions {
  readonly cache: ServedCache;
  readonly upstreams: readonly Upstream[];
  /** What `/_status` answers. */
  readonly status: () => Record<string, unknown>;
  readonly onError: (message: string) => void;
  /** Number of requests that are not fully answered yet. */
  readonly underWay: () => number;
  readonly memory: MemoryBudget;
}

/** Lower wins; cache.nixos.org has 40. We pass on what it has, so Nix should come to us first. */
const PRIORITY = 30;

const CACHE_INFO = `StoreDir: /nix/store\nWantMassQuery: 1\nPriority: ${PRIORITY}\n`;

const TEXT = { "content-type": "text/plain; charset=utf-8" };
const NARINFO = { "content-type": "text/x-nix-narinfo" };
const NAR_TYPE = "application/x-nix-nar";

export function createHandler(options: HandlerOptions): (request: Request) => Response | Promise<Response> {
  return (request) => {
    const found = route(request.method, request.url);
    try {
      const response = answer(found, request, options);
      return response instanceof Promise
        ? response.catch((error) => failed(found, error, options))
        : response;
    } catch (error) {
      return failed(found, error, options);
    }
  };
}

function answer(found: Route, request: Request, options: HandlerOptions): Response | Promise<Response> {
  switch (found.kind) {
    case "cache-info":
      return options.cache.isLoaded()
        ? text(request, 200, CACHE_INFO, { "content-type": "text/x-nix-cache-info" })
        : text(request, 503, "the index of the cache has not been loaded yet\n");
    case "narinfo":
      return narinfo(found.storeHash, request, options);
    case "nar":
      return nar(found, request, options);
    case "public-key":
      return publicKey(request, options);
    case "status":
      return status(request, options);
    case "refresh":
      return refresh(request, options);
    case "method-not-allowed":
      return text(request, 405, `method not allowed; allowed here: ${found.allow}\n`, { allow: found.allow });
    case "not-found":
      return text(request, 404, "not found\n");
  }
}

function status(request: Request, options: HandlerOptions): Response {
  const json = `${JSON.stringify(options.status(), null, 2)}\n`;
  return text(request, 200, json, { "content-type": "application/json" });
}

function narinfo(storeHash: string, request: Request, options: HandlerOptions): Response | Promise<Response> {
  const ours = options.cache.view.narinfo(storeHash);
  if (ours !== undefined) return text(request, 200, ours, NARINFO);
  if (options.upstreams.length === 0) return text(request, 404, "not found\n");
  return upstreamNarinfo(options.upstreams, storeHash, request.signal, options.onError).then((theirs) =>
    theirs === undefined ? text(request, 404, "not found\n") : text(request, 200, theirs, NARINFO),
  );
}

async function nar(
  { file, path }: { file: string; path: string },
  request: Request,
  options: HandlerOptions,
): Promise<Response> {
  const located = options.cache.view.nar(file);
  if (located === undefined) return upstreamNar(path, request, options);
  const source: NarFileSource = {
    parts: located.parts,
    fileHash: fileHash(located.narinfo, file),
  };
  const length = narFileSize(source);
  const headers = { "content-type": NAR_TYPE, "content-length": String(length) };
  if (request.method === "HEAD") return new Response(null, { headers });
  const { store } = options.cache;
  const { signal } = request;
  if (isBuffered(length, options.underWay())) {
    return new Response((await readNar(source, store, { signal })) as Uint8Array<ArrayBuffer>, {
      headers,
    });
  }
  return new Response(
    await streamNar(source, store, { signal, memory: options.memory, onError: options.onError }),
    {
      headers,
    },
  );
}

async function upstreamNar(path: string, request: Request, options: HandlerOptions): Promise<Response> {
  const method = request.method === "HEAD" ? "HEAD" : "GET";
  const init = { method, signal: request.signal } as const;
  const found = await upstreamRequest(options.upstreams, path, init, options.onError);
  // Before an index was ever loaded nobody knows what our own cache has.
  if (found === "absent" && !options.cache.isLoaded()) {
    return text(request, 503, "the index of the cache has not been loaded yet\n");
  }
  if (found === "absent") return text(request, 404, "not found\n");
  if (found === "failed") return text(request, 502, "the upstream cache cannot be reached\n");
  const headers = new Headers({ "content-type": found.headers.get("content-type") ?? NAR_TYPE });
  const length = found.headers.get("content-length");
  if (length !== null) headers.set("content-length", length);
  return new Response(found.body, { headers });
}

/** The FileHash: stated by the narinfo, and for an entry that has left the index by the file's own name. */
function fileHash(narinfo: string | undefined, file: string): string | undefined {
  if (narinfo !== undefined) return parseNarInfo(narinfo).fileHash;
  const [name = ""] = file.split(".", 1);
  return isBase32(name, 0, 52) && name.length === 52 ? `sha256:${name}` : undefined;
}

function publicKey(request: Request, options: HandlerOptions): Response {
  const keys = new Set(options.cache.view.generations().flatMap(({ record }) => record.keys));
  if (keys.size > 0) return text(request, 200, `${[...keys].join("\n")}\n`);
  return text(request, 404, "nothing in this cache was signed by its publishers\n");
}

async function refresh(request: Request, options: HandlerOptions): Promise<Response> {
  try {
    await options.cache.refresh();
  } catch (error) {
    return text(request, 502, `the index could not be refreshed: ${messageOf(error)}\n`);
  }
  return status(request, options);
}

/** What went wrong on the way to an answer. A narinfo is then absent: 5xx would abort the client's build. */
function failed(found: Route, error: unknown, { onError }: HandlerOptions): Response {
  onError(messageOf(error));
  if (found.kind === "narinfo") return new Response("not found\n", { status: 404, headers: TEXT });
  return new Response("the cache cannot be read now\n", { status: 502, headers: TEXT });
}

function text(
  request: Request,
  status: number,
  body: string,
  headers: Record<string, string> = TEXT,
): Response {
  if (request.method !== "HEAD") return new Response(body, { status, headers });
  return new Response(null, {
    status,
    headers: { ...headers, "content-length": String(Buffer.byteLength(body)) },
  });
}

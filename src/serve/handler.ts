/**
 * The server as a function from request to response. It knows neither ports nor signals.
 *
 * Which status Nix makes what of decides every failure here (rule 8): a narinfo is 200 or 404, since a 5xx
 * aborts the client's build; a NAR that cannot be had is a 5xx, since the client then asks the next
 * substituter; and `/nix-cache-info` is 503 until an index was loaded, since the client then skips us.
 */
import { messageOf } from "../errors.ts";
import { type NarContext, ownNar, upstreamNar } from "./answer-nar.ts";
import type { ServedCache } from "./cache.ts";
import { TEXT, text } from "./respond.ts";
import { type Route, route } from "./route.ts";
import type { Source } from "./source.ts";
import type { Upstreams } from "./upstreams.ts";

export interface HandlerOptions extends NarContext {
  /** Asked in order; the first that has something answers. */
  readonly caches: readonly ServedCache[];
  readonly upstreams: Upstreams;
  /** What `/_status` answers. */
  readonly status: () => Record<string, unknown>;
}

/** Lower wins; cache.nixos.org has 40. We pass on what it has, so Nix should come to us first. */
const PRIORITY = 30;

const CACHE_INFO = `StoreDir: /nix/store\nWantMassQuery: 1\nPriority: ${PRIORITY}\n`;

const NARINFO = { "content-type": "text/x-nix-narinfo" };

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
      return isLoaded(options)
        ? text(request.method, 200, CACHE_INFO, { "content-type": "text/x-nix-cache-info" })
        : text(request.method, 503, "the index of the cache has not been loaded yet\n");
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
      return text(request.method, 405, `method not allowed; allowed here: ${found.allow}\n`, {
        allow: found.allow,
      });
    case "listing":
    case "attached":
    case "metrics":
    case "page":
    case "not-found":
      return text(request.method, 404, "not found\n");
  }
}

function status(request: Request, options: HandlerOptions): Response {
  const json = `${JSON.stringify(options.status(), null, 2)}\n`;
  return text(request.method, 200, json, { "content-type": "application/json" });
}

function narinfo(storeHash: string, request: Request, options: HandlerOptions): Response | Promise<Response> {
  for (const { view } of options.caches) {
    const ours = view.narinfo(storeHash);
    if (ours !== undefined) return text(request.method, 200, ours, NARINFO);
  }
  const theirs = options.upstreams.narinfo(storeHash, request.signal);
  return theirs instanceof Promise
    ? theirs.then((found) => narinfoAnswer(found, request))
    : narinfoAnswer(theirs, request);
}

function narinfoAnswer(found: string | undefined, request: Request): Response {
  return found === undefined
    ? text(request.method, 404, "not found\n")
    : text(request.method, 200, found, NARINFO);
}

async function nar(
  { file, path }: { file: string; path: string },
  request: Request,
  options: HandlerOptions,
): Promise<Response> {
  for (const { view, store } of options.caches as readonly Source[]) {
    const located = view.nar(file);
    if (located !== undefined) return ownNar(file, located, store, request, options);
  }
  return upstreamNar(path, request, { upstreams: options.upstreams, isLoaded: isLoaded(options) });
}

/** Whether an index was ever loaded. Of several caches one is enough: the others must not keep it from answering. */
function isLoaded({ caches }: HandlerOptions): boolean {
  return caches.some((cache) => cache.isLoaded());
}

function publicKey(request: Request, options: HandlerOptions): Response {
  const keys = new Set(
    options.caches.flatMap(({ view }) => view.generations().flatMap(({ record }) => record.keys)),
  );
  if (keys.size > 0) return text(request.method, 200, `${[...keys].join("\n")}\n`);
  return text(request.method, 404, "nothing in this cache was signed by its publishers\n");
}

async function refresh(request: Request, options: HandlerOptions): Promise<Response> {
  try {
    await Promise.all(options.caches.map((cache) => cache.refresh()));
  } catch (error) {
    return text(request.method, 502, `the index could not be refreshed: ${messageOf(error)}\n`);
  }
  return status(request, options);
}

/** What went wrong on the way to an answer. A narinfo is then absent: 5xx would abort the client's build. */
function failed(found: Route, error: unknown, { onError }: HandlerOptions): Response {
  onError(messageOf(error));
  if (found.kind === "narinfo") return new Response("not found\n", { status: 404, headers: TEXT });
  return new Response("the cache cannot be read now\n", { status: 502, headers: TEXT });
}

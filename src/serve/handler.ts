/**
 * The server as a function from request to response. It knows neither ports nor signals.
 *
 * Which status Nix makes what of decides every failure here (rule 8): a narinfo is 200 or 404, since a 5xx
 * aborts the client's build; a NAR that cannot be had is a 5xx, since the client then asks the next
 * substituter; and `/nix-cache-info` is 503 until an index was loaded, since the client then skips us.
 */
import type { Part } from "../cache/part.ts";
import { messageOf } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import { upstreamAttached } from "./answer-attached.ts";
import { type NarContext, ownNar, upstreamNar } from "./answer-nar.ts";
import { ownAttached, ownListing } from "./attached.ts";
import type { ServedCache } from "./cache.ts";
import { Exchange } from "./exchange.ts";
import type { Guard } from "./guard.ts";
import type { Page } from "./page/page.ts";
import { PROMETHEUS_TYPE } from "./prometheus.ts";
import { clientGone, sandboxed, TEXT, text } from "./respond.ts";
import { type Route, route } from "./route.ts";
import { type Source, sourceOf } from "./source.ts";
import type { Traffic } from "./traffic.ts";
import type { FetchNar, UpstreamNars } from "./upstream-nars.ts";
import type { Upstreams } from "./upstreams.ts";
import type { Writer } from "./writer.ts";

export interface HandlerOptions extends Omit<NarContext, "exchange"> {
  /** Asked in order; the first that has something answers. */
  readonly caches: readonly ServedCache[];
  readonly upstreams: Upstreams;
  /** Keeps NARs of upstreams on disk; undefined: they are passed on. */
  readonly upstreamNars?: UpstreamNars | undefined;
  /** Whether a blob is on this machine's disk. */
  readonly isOnDisk?: ((digest: Digest) => boolean) | undefined;
  /** Accepts uploads; undefined: nobody does. */
  readonly writer?: Writer | undefined;
  /** What `/_status` answers. */
  readonly status: () => Record<string, unknown>;
  /** What `/metrics` answers. */
  readonly metrics: () => string;
  /** For what lists or changes something. */
  readonly guard: Guard;
  /** What people see at `/`; nothing without it. */
  readonly page?: Page | undefined;
  readonly traffic: Traffic;
  /** Called for each request; what it gives is called when the answer has been sent. */
  readonly watch?: ((request: Request) => (exchange: Exchange) => void) | undefined;
}

/** Lower wins; cache.nixos.org has 40. We pass on what it has, so Nix should come to us first. */
const PRIORITY = 30;

const CACHE_INFO = `StoreDir: /nix/store\nWantMassQuery: 1\nPriority: ${PRIORITY}\n`;

const NARINFO = { "content-type": "text/x-nix-narinfo" };

const NOT_FOUND = "not found\n";

const ABSENT = { status: 404, headers: TEXT };

export function createHandler(options: HandlerOptions): (request: Request) => Response | Promise<Response> {
  const { traffic, clock, watch } = options;
  return (request) => {
    const { method } = request;
    const found = route(method, request.url);
    const kind = method === "PUT" && options.writer !== undefined ? "upload" : found.kind;
    const exchange = new Exchange(traffic.of(kind), clock(), watch?.(request));
    const begin = (response: Response) => {
      exchange.begin(response, method === "HEAD", clock());
      return response;
    };
    try {
      const response = answer(found, request, options, exchange);
      return response instanceof Promise
        ? response.catch((error) => failed(found, request, error, options)).then(begin)
        : begin(response);
    } catch (error) {
      return begin(failed(found, request, error, options));
    }
  };
}

/** What lists or changes something; the rest needs the hash of what it asks for. */
const GUARDED: ReadonlySet<Route["kind"]> = new Set(["status", "metrics", "page", "refresh"]);

function answer(
  found: Route,
  request: Request,
  options: HandlerOptions,
  exchange: Exchange,
): Response | Promise<Response> {
  if (request.method === "PUT" && options.writer !== undefined) {
    return options.writer.put(route("GET", request.url), request);
  }
  const refusal = GUARDED.has(found.kind) ? options.guard(request) : undefined;
  if (refusal !== undefined) return text(request.method, 403, `${refusal}\n`);
  switch (found.kind) {
    case "cache-info":
      return isLoaded(options)
        ? text(request.method, 200, CACHE_INFO, { "content-type": "text/x-nix-cache-info" })
        : text(request.method, 503, "the index of the cache has not been loaded yet\n");
    case "narinfo":
      return narinfo(found.storeHash, request, options, exchange);
    case "nar":
      return nar(found, request, options, exchange);
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
    case "from":
      return fromUpstream(found, request, options, exchange);
    case "listing":
      return (
        ownListing(found.storeHash, request, sourcesOf(options), { ...options, exchange }) ??
        attached(`${found.storeHash}.ls`, request, options, exchange)
      );
    case "attached":
      return (
        ownAttached(found.path, request, sourcesOf(options), { ...options, exchange }) ??
        attached(found.path, request, options, exchange)
      );
    case "metrics":
      return text(request.method, 200, options.metrics(), { "content-type": PROMETHEUS_TYPE });
    case "bad-request":
      return text(request.method, 400, "the path has a malformed escape\n");
    case "page":
      return options.page?.(found.path, found.query, request) ?? text(request.method, 404, NOT_FOUND);
    case "not-found":
      return text(request.method, 404, NOT_FOUND);
  }
}

function status(request: Request, options: HandlerOptions): Response {
  const json = `${JSON.stringify(options.status(), null, 2)}\n`;
  return text(request.method, 200, json, { "content-type": "application/json" });
}

function narinfo(
  storeHash: string,
  request: Request,
  options: HandlerOptions,
  exchange: Exchange,
): Response | Promise<Response> {
  const ours = sourceOf(storeHash, sourcesOf(options));
  if (ours !== undefined) {
    exchange.source = ours.source === options.writer ? "journal" : "cache";
    return narinfoAnswer(ours.narinfo, request, exchange);
  }
  const theirs = options.upstreams.narinfo(storeHash, request);
  const pass = (found: string | undefined) => {
    if (found === undefined) return narinfoAbsent(request, exchange);
    exchange.source = "upstream";
    options.upstreamNars?.learn(found);
    return narinfoAnswer(found, request, exchange);
  };
  return theirs instanceof Promise ? theirs.then(pass) : pass(theirs);
}

/** The answer that most requests get. */
function narinfoAnswer(found: string, request: Request, exchange: Exchange): Response {
  if (request.method === "HEAD") return text("HEAD", 200, found, NARINFO);
  exchange.bytes = Buffer.byteLength(found);
  return new Response(found, { headers: NARINFO });
}

/** The next most frequent. */
function narinfoAbsent(request: Request, exchange: Exchange): Response {
  if (request.method === "HEAD") return text("HEAD", 404, NOT_FOUND);
  exchange.bytes = NOT_FOUND.length;
  return new Response(NOT_FOUND, ABSENT);
}

async function nar(
  { file, path }: { file: string; path: string },
  request: Request,
  options: HandlerOptions,
  exchange: Exchange,
): Promise<Response> {
  // Nix asks before it sends a NAR: what only an upstream has must be sent.
  const asksToSend = request.method === "HEAD" && options.writer !== undefined;
  if (asksToSend && !options.writer?.keepsNar(file)) return text(request.method, 404, NOT_FOUND);
  for (const source of sourcesOf(options)) {
    const located = source.view.nar(file);
    if (located === undefined) continue;
    const isKept = isOnDisk(located.parts, options);
    exchange.source = source === options.writer ? "journal" : isKept ? "disk" : "cache";
    return ownNar(file, located, source.store, request, { ...options, exchange });
  }
  const fetch: FetchNar = (asked) => options.upstreams.nar(path, asked);
  return theirNar(path, fetch, request, options, exchange, isLoaded(options));
}

/** A NAR that is asked for so can only be the upstream's; what we have loaded does not matter. */
async function fromUpstream(
  { upstream, path }: { upstream: string; path: string },
  request: Request,
  options: HandlerOptions,
  exchange: Exchange,
): Promise<Response> {
  const fetch: FetchNar = (asked) => options.upstreams.from(upstream, path, asked);
  return theirNar(`from/${upstream}/${path}`, fetch, request, options, exchange, true);
}

/** @param url as it stands in the narinfo */
async function theirNar(
  url: string,
  fetch: FetchNar,
  request: Request,
  options: HandlerOptions,
  exchange: Exchange,
  isLoaded: boolean,
): Promise<Response> {
  const kept = options.upstreamNars?.find(url, request, fetch);
  if (kept === undefined)
    return passed(upstreamNar(await fetch(request), request, isLoaded), request, exchange);
  exchange.source = isOnDisk(kept.located.parts, options) ? "disk" : "upstream";
  // Not every upstream has ranges, so no windows: what is read ahead waits on disk.
  return ownNar("", kept.located, kept.store, request, { ...options, memory: undefined, exchange });
}

async function attached(
  path: string,
  request: Request,
  { upstreams }: HandlerOptions,
  exchange: Exchange,
): Promise<Response> {
  return passed(await upstreamAttached(path, request, upstreams), request, exchange);
}

/** The answer of an upstream, counted. */
function passed(response: Response, request: Request, exchange: Exchange): Response {
  const { status, headers } = sandboxed(response);
  if (!response.ok) return response;
  exchange.source = "upstream";
  if (request.method === "HEAD" || response.body === null) return response;
  return new Response(exchange.stream(response.body), { status, headers });
}

function isOnDisk(parts: readonly Part[], options: HandlerOptions): boolean {
  return options.isOnDisk !== undefined && parts.every(({ blob }) => options.isOnDisk?.(blob));
}

/** Uploads that are not in a cache yet come first: they are newer. */
function sourcesOf({ writer, caches }: HandlerOptions): readonly Source[] {
  return writer === undefined ? caches : [writer, ...caches];
}

/** Whether an index was ever loaded. Of several caches one is enough: the others must not keep it from answering. */
function isLoaded({ caches }: HandlerOptions): boolean {
  return caches.some((cache) => cache.isLoaded());
}

function publicKey(request: Request, options: HandlerOptions): Response {
  const keys = new Set(options.caches.flatMap((cache) => cache.summary().keys));
  if (keys.size > 0) return text(request.method, 200, `${[...keys].join("\n")}\n`);
  return text(request.method, 404, "nothing in this cache was signed by its publishers\n");
}

/** One cache that cannot be read keeps none of the others from being refreshed. */
async function refresh(request: Request, options: HandlerOptions): Promise<Response> {
  const { caches } = options;
  const tries = await Promise.allSettled(caches.map((cache) => cache.refresh()));
  const failures = tries.flatMap((tried, at) =>
    tried.status === "rejected" ? [`${caches[at]?.store.name}: ${messageOf(tried.reason)}\n`] : [],
  );
  if (failures.length === 0) return status(request, options);
  return text(request.method, 502, `the index could not be refreshed of ${failures.join("and of ")}`);
}

/** What went wrong on the way to an answer. A narinfo is then absent: 5xx would abort the client's build. */
function failed(found: Route, { signal }: Request, error: unknown, { onError }: HandlerOptions): Response {
  if (signal.aborted) return clientGone();
  onError(messageOf(error));
  if (found.kind === "narinfo") return new Response("not found\n", { status: 404, headers: TEXT });
  return new Response("the cache cannot be read now\n", { status: 502, headers: TEXT });
}

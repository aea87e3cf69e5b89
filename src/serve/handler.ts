/**
 * The server as a function from request to response. It knows neither ports nor signals.
 *
 * Which status Nix makes what of decides every failure here (rule 8): a narinfo is 200 or 404, since a 5xx
 * aborts the client's build; a NAR that cannot be had is a 404, since the client then goes on to the next
 * substituter, and a 503 while its download is resumed (resume.ts); and until an index was loaded `/nix-cache-info`
 * and NARs are 503, since the client then skips us.
 */
import { messageOf } from "../errors.ts";
import { isPublicKey } from "../nar/signing-key.ts";
import { LeftAlone } from "../upstream/failure.ts";
import { upstreamAttached } from "./answer-attached.ts";
import { ownAttached, ownListing } from "./attached.ts";
import type { ServedCache } from "./cache.ts";
import { Exchange } from "./exchange.ts";
import type { Guard } from "./guard.ts";
import {
  acceptRanges,
  type NarRequestOptions,
  type NarWorld,
  NOT_LOADED,
  narRequest,
} from "./nar-request.ts";
import type { Page } from "./page/page.ts";
import { passed } from "./pass.ts";
import { PROMETHEUS_TYPE } from "./prometheus.ts";
import { clientGone, TEXT, text } from "./respond.ts";
import { BrokenDownloads } from "./resume.ts";
import { type Route, route } from "./route.ts";
import { type Source, sourceOf } from "./source.ts";
import type { Traffic } from "./traffic.ts";

export interface HandlerOptions extends NarRequestOptions {
  /** Asked in order; the first that has something answers. */
  readonly caches: readonly ServedCache[];
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

/** What the handler keeps from one request to another. */
interface Served extends HandlerOptions {
  readonly broken: BrokenDownloads;
}

export function createHandler(given: HandlerOptions): (request: Request) => Response | Promise<Response> {
  const { traffic, clock, watch } = given;
  const options: Served = { ...given, broken: new BrokenDownloads(clock) };
  return (request) => {
    const { method } = request;
    const found = route(method, request.url);
    const kind = method === "PUT" && options.writer !== undefined ? "upload" : found.kind;
    const exchange = new Exchange(traffic.of(kind), clock(), watch?.(request));
    const isNar = found.kind === "nar" || found.kind === "from";
    const begin = (response: Response) => {
      if (isNar) acceptRanges(response);
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

/** What lists or changes something, or has an upstream asked by our word; the rest needs the hash of what it asks for. */
const GUARDED: ReadonlySet<Route["kind"]> = new Set(["status", "metrics", "page", "refresh", "from"]);

function answer(
  found: Route,
  request: Request,
  options: Served,
  exchange: Exchange,
): Response | Promise<Response> {
  if (request.method === "PUT" && options.writer !== undefined) {
    return options.writer.put(route("GET", request.url), request);
  }
  const of = found.kind === "from" ? "programs" : "everybody";
  const refusal = GUARDED.has(found.kind) ? options.guard(request, of) : undefined;
  if (refusal !== undefined) return text(request.method, 403, `${refusal}\n`);
  switch (found.kind) {
    case "cache-info":
      return isLoaded(options)
        ? text(request.method, 200, CACHE_INFO, { "content-type": "text/x-nix-cache-info" })
        : text(request.method, 503, NOT_LOADED);
    case "narinfo":
      return narinfo(found.storeHash, request, options, exchange);
    case "nar":
    case "from":
      return narRequest(found, request, options, narWorld(options), exchange);
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

async function attached(
  path: string,
  request: Request,
  { upstreams }: HandlerOptions,
  exchange: Exchange,
): Promise<Response> {
  return passed(await upstreamAttached(path, request, upstreams), request, exchange);
}

function narWorld(options: Served): NarWorld {
  return { sources: sourcesOf(options), isLoaded: isLoaded(options), broken: options.broken };
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
  // Whoever may write to the registry can name any: what is no key may be a line of nix.conf, or drive a terminal.
  const keys = new Set(options.caches.flatMap((cache) => cache.summary().keys.filter(isPublicKey)));
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

/**
 * Where an error of a server would end the client's build, or keep it from asking its next substituter. Listings, logs
 * and realisations are such files, too.
 */
const ABSENT_AT_WORST: ReadonlySet<Route["kind"]> = new Set([
  "narinfo",
  "nar",
  "from",
  "listing",
  "attached",
]);

/** What went wrong on the way to an answer. */
function failed(
  found: Route,
  { signal, method }: Request,
  error: unknown,
  { onError }: HandlerOptions,
): Response {
  if (signal.aborted) return clientGone();
  if (!(error instanceof LeftAlone)) onError(messageOf(error));
  if (ABSENT_AT_WORST.has(found.kind)) return text(method, 404, NOT_FOUND);
  return text(method, 502, "the cache cannot be read now\n");
}

/**
 * A request for a NAR: from which of several places it is answered, and what it gets when none of them has it now.
 * Why that is a 404 or a 503 is in resume.ts.
 */
import type { Part } from "../cache/part.ts";
import { messageOf, NixcacheError } from "../errors.ts";
import type { Host } from "../host.ts";
import type { Digest } from "../oci/digest.ts";
import { LeftAlone } from "../upstream/failure.ts";
import { type NarContext, ownNar, upstreamNar } from "./answer-nar.ts";
import type { Exchange } from "./exchange.ts";
import { passed } from "./pass.ts";
import { text } from "./respond.ts";
import { ASK_EVERY_MS, type BrokenDownloads, RESUME_WAIT_MS } from "./resume.ts";
import type { Route } from "./route.ts";
import type { Source } from "./source.ts";
import type { FetchNar, UpstreamNars } from "./upstream-nars.ts";
import type { Upstreams } from "./upstreams.ts";
import type { Writer } from "./writer.ts";

export type NarRoute = Extract<Route, { kind: "nar" | "from" }>;

export interface NarRequestOptions extends Omit<NarContext, "exchange" | "onBroken"> {
  readonly upstreams: Upstreams;
  /** Keeps NARs of upstreams on disk; undefined: they are passed on. */
  readonly upstreamNars?: UpstreamNars | undefined;
  /** Whether a blob is on this machine's disk. */
  readonly isOnDisk?: ((digest: Digest) => boolean) | undefined;
  /** Accepts uploads; undefined: nobody does. */
  readonly writer?: Writer | undefined;
  readonly onError: (message: string) => void;
  readonly sleep: Host["sleep"];
}

/** What the server knows besides. */
export interface NarWorld {
  /** Asked in order. */
  readonly sources: readonly Source[];
  /** Whether an index was ever loaded: before, nobody knows what our own cache has. */
  readonly isLoaded: boolean;
  readonly broken: BrokenDownloads;
}

const NOT_FOUND = "not found\n";
export const NOT_LOADED = "the index of the cache has not been loaded yet\n";
const NOT_NOW = "this NAR cannot be had now\n";

/** What every answer to a request for a NAR says, errors included: Nix resumes a download only after such a one. */
export function acceptRanges(response: Response): Response {
  response.headers.set("accept-ranges", "bytes");
  return response;
}

/** @throws when the client has hung up */
export async function narRequest(
  found: NarRoute,
  request: Request,
  options: NarRequestOptions,
  world: NarWorld,
  exchange: Exchange,
): Promise<Response> {
  const { method, signal } = request;
  const { broken } = world;
  const { clock, sleep } = options;
  const file = found.kind === "nar" ? found.path : `from/${found.id}/${found.path}`;
  const resumes = request.headers.has("range");
  if (resumes && broken.isWrong(file)) return text(method, 404, NOT_NOW);
  const started = clock();
  for (let tries = 1; ; tries++) {
    try {
      const response = await attempt(found, file, request, options, world, exchange);
      if (resumes && response.ok) broken.moved(file);
      return response;
    } catch (error) {
      if (signal.aborted) throw error;
      exchange.source = "none";
      if (tries === 1 && !(error instanceof LeftAlone)) options.onError(messageOf(error));
      // What is gone or wrong does not come back by itself.
      const isGone = error instanceof NixcacheError && error.code === "corrupt";
      if (!world.isLoaded && found.kind === "nar") return text(method, 503, NOT_LOADED);
      if (!resumes || isGone) return text(method, 404, NOT_NOW);
      const isLate = tries * ASK_EVERY_MS >= RESUME_WAIT_MS || clock() - started >= RESUME_WAIT_MS;
      if (isLate) return text(method, broken.refuse(file) ? 503 : 404, NOT_NOW);
      await sleep(ASK_EVERY_MS, signal);
    }
  }
}

/** @throws when it cannot be had now */
async function attempt(
  found: NarRoute,
  file: string,
  request: Request,
  options: NarRequestOptions,
  world: NarWorld,
  exchange: Exchange,
): Promise<Response> {
  if (found.kind === "from") {
    const fetchNar: FetchNar = (asked) => options.upstreams.from(found.id, found.path, asked);
    // It can only be the upstream's; what we have loaded does not matter.
    return (
      (await theirNar(file, fetchNar, request, options, exchange)) ?? text(request.method, 404, NOT_FOUND)
    );
  }
  // Nix asks before it sends a NAR: what only an upstream has must be sent.
  const asksToSend = request.method === "HEAD" && options.writer !== undefined;
  if (asksToSend && !options.writer?.keepsNar(found.file)) return text(request.method, 404, NOT_FOUND);
  const ours = await ourNar(found.file, file, request, options, world, exchange);
  if (ours !== undefined) return ours;
  const fetchNar: FetchNar = (asked) => options.upstreams.nar(found.path, asked);
  const theirs = await theirNar(file, fetchNar, request, options, exchange);
  if (theirs !== undefined) return theirs;
  if (world.isLoaded) return text(request.method, 404, NOT_FOUND);
  return text(request.method, 503, NOT_LOADED);
}

/** From the first source that can give it; undefined when none has it. @throws what the first one does that has it */
async function ourNar(
  name: string,
  file: string,
  request: Request,
  options: NarRequestOptions,
  { sources, broken }: NarWorld,
  exchange: Exchange,
): Promise<Response | undefined> {
  let failure: { readonly error: unknown } | undefined;
  const onBroken = (error: unknown) => {
    options.onError(messageOf(error));
    if (error instanceof NixcacheError && error.code === "corrupt") broken.foundWrong(file);
  };
  for (const source of sources) {
    const located = source.view.nar(name);
    if (located === undefined) continue;
    const isKept = isOnDisk(located.parts, options);
    exchange.source = source === options.writer ? "journal" : isKept ? "disk" : "cache";
    try {
      return await ownNar(name, located, source.store, request, { ...options, exchange, onBroken });
    } catch (error) {
      if (request.signal.aborted) throw error;
      failure ??= { error };
    }
  }
  if (failure !== undefined) throw failure.error;
  return undefined;
}

/**
 * Undefined when the upstreams say that they have none.
 * @param url as it stands in the narinfo
 */
async function theirNar(
  url: string,
  fetchNar: FetchNar,
  request: Request,
  options: NarRequestOptions,
  exchange: Exchange,
): Promise<Response | undefined> {
  const kept = options.upstreamNars?.find(url, request, fetchNar);
  if (kept !== undefined) {
    exchange.source = isOnDisk(kept.located.parts, options) ? "disk" : "upstream";
    const onBroken = (error: unknown) => options.onError(messageOf(error));
    try {
      // Not every upstream has ranges, so no windows: what is read ahead waits on disk.
      const context = { ...options, memory: undefined, exchange, onBroken };
      return await ownNar("", kept.located, kept.store, request, context);
    } catch (error) {
      if (request.signal.aborted || !(error instanceof NixcacheError) || error.code !== "corrupt")
        throw error;
      // It is not what its narinfo states, or absent: the client shall have what the upstream has.
      options.upstreamNars?.forget(url);
    }
  }
  const found = await fetchNar(request);
  if (found === "absent") return undefined;
  if (found === "failed") throw new LeftAlone(`GET ${url}: no upstream answered`);
  return passed(upstreamNar(found, request), request, exchange);
}

function isOnDisk(parts: readonly Part[], options: Pick<NarRequestOptions, "isOnDisk">): boolean {
  return options.isOnDisk !== undefined && parts.every(({ blob }) => options.isOnDisk?.(blob));
}

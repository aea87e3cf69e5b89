/** The answer to a request for a NAR: from a cache of ours, or from an upstream. */
import type { NarLocation } from "../cache/index-reader.ts";
import { isBase32 } from "../nar/base32.ts";
import { parseNarInfo } from "../nar/narinfo.ts";
import type { ReadOptions } from "../protocol/blob-range.ts";
import { type NarFileSource, narFileSize } from "../protocol/nar-file.ts";
import type { Exchange } from "./exchange.ts";
import type { MemoryBudget } from "./memory.ts";
import { isBuffered, readNar, streamNar } from "./nar.ts";
import { contentRange, isNotModified, requestedRange } from "./range.ts";
import { TEXT, text } from "./respond.ts";
import type { Source } from "./source.ts";

export interface NarContext {
  readonly onError: (message: string) => void;
  /** Number of requests that are not fully answered yet. */
  readonly underWay: () => number;
  readonly memory: MemoryBudget;
  /** Requests for one NAR at once. */
  readonly connections: number;
  /** Milliseconds, by a clock that never goes back. */
  readonly clock: () => number;
  readonly exchange: Exchange;
}

const NAR_TYPE = "application/x-nix-nar";

/** Headers of an upstream's answer that come back. */
const PASSED = ["content-type", "content-length", "content-range", "accept-ranges", "etag", "last-modified"];

export async function ownNar(
  file: string,
  located: NarLocation,
  store: Source["store"],
  request: Request,
  {
    onError,
    underWay,
    memory,
    connections,
    clock,
    exchange,
  }: Omit<NarContext, "memory"> & Pick<ReadOptions, "memory">,
): Promise<Response> {
  const source: NarFileSource = {
    parts: located.parts,
    fileHash: fileHash(located.narinfo, file),
  };
  const size = narFileSize(source);
  const etag = source.fileHash && `"${source.fileHash}"`;
  const whole = { "content-type": NAR_TYPE, "accept-ranges": "bytes", ...(etag && { etag }) };
  if (isNotModified(request.headers, etag)) return new Response(null, { status: 304, headers: whole });
  if (request.method === "HEAD") {
    return new Response(null, { headers: { ...whole, "content-length": String(size) } });
  }
  const range = requestedRange(request.headers, size, etag);
  if (range === "unsatisfiable") {
    const headers = { ...whole, ...TEXT, "content-range": contentRange(undefined, size) };
    return new Response(`the NAR has ${size} bytes\n`, { status: 416, headers });
  }
  const length = range?.length ?? size;
  const init = {
    status: range ? 206 : 200,
    headers: {
      ...whole,
      "content-length": String(length),
      ...(range && { "content-range": contentRange(range, size) }),
    },
  };
  const { signal } = request;
  if (isBuffered(size, underWay())) {
    const bytes = await readNar(source, store, { signal });
    const { offset } = range ?? { offset: 0 };
    return new Response(bytes.subarray(offset, offset + length) as Uint8Array<ArrayBuffer>, init);
  }
  if (isBuffered(length, underWay())) {
    const bytes = await readNar(source, store, { signal, range });
    return new Response(bytes as Uint8Array<ArrayBuffer>, init);
  }
  const stream = await streamNar(source, store, { signal, range, memory, connections, clock, onError });
  return new Response(exchange.stream(stream), init);
}

/** @param found what upstreams say */
export function upstreamNar(
  found: Response | "absent" | "failed",
  request: Request,
  isLoaded: boolean,
): Response {
  // Before an index was ever loaded nobody knows what our own cache has.
  if (found === "absent" && !isLoaded) {
    return text(request.method, 503, "the index of the cache has not been loaded yet\n");
  }
  if (found === "absent") return text(request.method, 404, "not found\n");
  if (found === "failed") return text(request.method, 503, "the upstream cache cannot be reached\n");
  const headers = new Headers({ "content-type": NAR_TYPE });
  for (const name of PASSED) {
    const value = found.headers.get(name);
    if (value !== null) headers.set(name, value);
  }
  return new Response(found.body, { status: found.status, headers });
}

/** The FileHash: stated by the narinfo, and for an entry that has left the index by the file's own name. */
function fileHash(narinfo: string | undefined, file: string): string | undefined {
  if (narinfo !== undefined) return parseNarInfo(narinfo).fileHash;
  const [name = ""] = file.split(".", 1);
  return isBase32(name, 0, 52) && name.length === 52 ? `sha256:${name}` : undefined;
}

/** The answer to a request for a NAR: from a cache of ours, or from an upstream. */
import type { NarLocation } from "../cache/index-reader.ts";
import { isBase32 } from "../nar/base32.ts";
import { parseNarInfo } from "../nar/narinfo.ts";
import type { ByteRange } from "../oci/store.ts";
import type { ReadOptions } from "../protocol/blob-range.ts";
import { type NarFileSource, narFileSize } from "../protocol/nar-file.ts";
import type { Exchange } from "./exchange.ts";
import type { MemoryBudget } from "./memory.ts";
import { isBuffered, readNar, streamNar } from "./nar.ts";
import { contentRange, cut, isNotModified, requestedRange } from "./range.ts";
import { TEXT } from "./respond.ts";
import type { Source } from "./source.ts";

export interface NarContext {
  /** Told why a transfer was broken off, when it was not the client who did. */
  readonly onBroken: (error: unknown) => void;
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
const PASSED = ["content-type", "content-length", "content-range", "etag", "last-modified"];

export async function ownNar(
  file: string,
  located: NarLocation,
  store: Source["store"],
  request: Request,
  {
    onBroken,
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
  const stream = await streamNar(source, store, { signal, range, memory, connections, clock, onBroken });
  return new Response(exchange.stream(stream), init);
}

/**
 * What an upstream answered, as we answer. We say of every NAR that it can be asked for in ranges: where the upstream has
 * none, the range is cut out of what it sends.
 */
export function upstreamNar(found: Response, request: Request): Response {
  const headers = new Headers({ "content-type": NAR_TYPE });
  for (const name of PASSED) {
    const value = found.headers.get(name);
    if (value !== null) headers.set(name, value);
  }
  const range = rangeToCut(found, request);
  if (range === undefined || found.body === null)
    return new Response(found.body, { status: found.status, headers });
  headers.set("content-length", String(range.length));
  headers.set("content-range", contentRange(range, lengthOf(found)));
  return new Response(cut(found.body, range), { status: 206, headers });
}

/** Of an answer that is the whole in the place of the range that was asked for, where its length is known. */
function rangeToCut(found: Response, { method, headers }: Request): ByteRange | undefined {
  // With an If-Range the whole may be the right answer.
  if (found.status !== 200 || method === "HEAD" || headers.has("if-range")) return undefined;
  const size = lengthOf(found);
  const range = size > 0 ? requestedRange(headers, size, undefined) : undefined;
  return range === "unsatisfiable" ? undefined : range;
}

/** 0 where it is not stated. */
function lengthOf({ headers }: Response): number {
  const length = headers.get("content-length") ?? "";
  return /^\d{1,15}$/.test(length) ? Number(length) : 0;
}

/** The FileHash: stated by the narinfo, and for an entry that has left the index by the file's own name. */
function fileHash(narinfo: string | undefined, file: string): string | undefined {
  if (narinfo !== undefined) return parseNarInfo(narinfo).fileHash;
  const [name = ""] = file.split(".", 1);
  return isBase32(name, 0, 52) && name.length === 52 ? `sha256:${name}` : undefined;
}

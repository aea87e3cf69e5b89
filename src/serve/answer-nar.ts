/** The answer to a request for a NAR: from a cache of ours, or from an upstream. */
import type { NarLocation } from "../cache/index-reader.ts";
import { isBase32 } from "../nar/base32.ts";
import { parseNarInfo } from "../nar/narinfo.ts";
import { type NarFileSource, narFileSize } from "../protocol/nar-file.ts";
import type { MemoryBudget } from "./memory.ts";
import { isBuffered, readNar, streamNar } from "./nar.ts";
import { text } from "./respond.ts";
import type { Source } from "./source.ts";
import type { Upstreams } from "./upstreams.ts";

export interface NarContext {
  readonly onError: (message: string) => void;
  /** Number of requests that are not fully answered yet. */
  readonly underWay: () => number;
  readonly memory: MemoryBudget;
}

const NAR_TYPE = "application/x-nix-nar";

export async function ownNar(
  file: string,
  located: NarLocation,
  store: Source["store"],
  request: Request,
  { onError, underWay, memory }: NarContext,
): Promise<Response> {
  const source: NarFileSource = {
    parts: located.parts,
    fileHash: fileHash(located.narinfo, file),
  };
  const length = narFileSize(source);
  const headers = { "content-type": NAR_TYPE, "content-length": String(length) };
  if (request.method === "HEAD") return new Response(null, { headers });
  const { signal } = request;
  if (isBuffered(length, underWay())) {
    const bytes = await readNar(source, store, { signal });
    return new Response(bytes as Uint8Array<ArrayBuffer>, { headers });
  }
  return new Response(await streamNar(source, store, { signal, memory, onError }), { headers });
}

export async function upstreamNar(
  path: string,
  request: Request,
  { upstreams, isLoaded }: { upstreams: Upstreams; isLoaded: boolean },
): Promise<Response> {
  const method = request.method === "HEAD" ? "HEAD" : "GET";
  const found = await upstreams.request(path, { method, signal: request.signal });
  // Before an index was ever loaded nobody knows what our own cache has.
  if (found === "absent" && !isLoaded) {
    return text(request.method, 503, "the index of the cache has not been loaded yet\n");
  }
  if (found === "absent") return text(request.method, 404, "not found\n");
  if (found === "failed") return text(request.method, 502, "the upstream cache cannot be reached\n");
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

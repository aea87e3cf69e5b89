/** The answer to a request for a file that stands beside narinfos: a build log, a listing, a realisation. */
import { text } from "./respond.ts";
import type { Upstreams } from "./upstreams.ts";

/** What goes through of an upstream's answer. Caches keep logs and listings compressed, and Nix undoes that. */
const PASSED = ["content-type", "content-encoding", "content-length"];

/** Absent also when an upstream cannot be reached: no build depends on such a file. */
export async function upstreamAttached(
  path: string,
  request: Request,
  upstreams: Upstreams,
): Promise<Response> {
  const found = await upstreams.attached(path, request);
  if (typeof found === "string") return text(request.method, 404, "not found\n");
  const headers = new Headers();
  for (const name of PASSED) {
    const value = found.headers.get(name);
    if (value !== null) headers.set(name, value);
  }
  return new Response(found.body, { headers });
}

/** Upstream caches behind ours, in their plain form: asked in order, the first that has it answers. */
import { messageOf } from "../errors.ts";
import type { Upstream } from "../upstream/client.ts";

/** The text of a narinfo; undefined when none has it. An upstream that fails counts as not having it (rule 8). */
export async function upstreamNarinfo(
  upstreams: readonly Upstream[],
  storeHash: string,
  signal: AbortSignal,
  onError: (message: string) => void,
): Promise<string | undefined> {
  for (const upstream of upstreams) {
    try {
      const text = await upstream.narinfo(storeHash, signal);
      if (text !== undefined) return text;
    } catch (error) {
      if (!signal.aborted) onError(messageOf(error));
    }
  }
  return undefined;
}

/**
 * The first answer to a request of any path.
 * `absent` when every upstream said so, `failed` when one could not say.
 */
export async function upstreamRequest(
  upstreams: readonly Upstream[],
  path: string,
  init: { method: "GET" | "HEAD"; signal: AbortSignal },
  onError: (message: string) => void,
): Promise<Response | "absent" | "failed"> {
  let failed = false;
  for (const upstream of upstreams) {
    try {
      const response = await upstream.request(path, init);
      if (response !== undefined) return response;
    } catch (error) {
      failed = true;
      if (!init.signal.aborted) onError(messageOf(error));
    }
  }
  return failed ? "failed" : "absent";
}

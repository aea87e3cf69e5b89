/** Upstream caches behind ours, in their plain form: asked in order, the first that has it answers. */
import { messageOf } from "../errors.ts";
import type { Upstream, UpstreamRequest } from "../upstream/client.ts";

export interface Upstreams {
  /** The text of a narinfo; undefined when none has it. An upstream that fails counts as not having it (rule 8). */
  narinfo(storeHash: string, signal: AbortSignal): string | undefined | Promise<string | undefined>;
  /**
   * The first answer to a request of any path.
   * `absent` when every upstream said so, `failed` when one could not say.
   */
  request(path: string, init: UpstreamRequest): Promise<Response | "absent" | "failed">;
}

export function createUpstreams(
  upstreams: readonly Upstream[],
  onError: (message: string) => void,
): Upstreams {
  async function ask(storeHash: string, signal: AbortSignal): Promise<string | undefined> {
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

  return {
    narinfo: (storeHash, signal) => (upstreams.length === 0 ? undefined : ask(storeHash, signal)),
    async request(path, init) {
      let failed = false;
      for (const upstream of upstreams) {
        try {
          const response = await upstream.request(path, init);
          if (response !== undefined) return response;
        } catch (error) {
          failed = true;
          if (!init.signal?.aborted) onError(messageOf(error));
        }
      }
      return failed ? "failed" : "absent";
    },
  };
}

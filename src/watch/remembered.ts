/** Upstreams for a run that asks for the same paths in each of its rounds. */
import type { Upstream } from "../upstream/client.ts";

/** What was found once is not asked for again; what was absent is, since it may come. */
export function rememberFound(upstream: Upstream): Upstream {
  const found = new Map<string, string>();
  return {
    ...upstream,
    async narinfo(storeHash, signal, headers) {
      const text = found.get(storeHash) ?? (await upstream.narinfo(storeHash, signal, headers));
      if (text !== undefined) found.set(storeHash, text);
      return text;
    },
  };
}

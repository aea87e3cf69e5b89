/** Whether a store path may be in an upstream: only a clear "no" of all of them is one. */
import { NixcacheError } from "../errors.ts";
import type { Upstream } from "./client.ts";

/** An upstream that cannot be asked may have it, which is told. */
export async function mayHave(
  upstreams: readonly Upstream[],
  storeHash: string,
  { signal, warn }: { signal?: AbortSignal | undefined; warn: (message: string) => void },
): Promise<boolean> {
  for (const upstream of upstreams) {
    try {
      if ((await upstream.narinfo(storeHash, signal)) !== undefined) return true;
    } catch (error) {
      if (!(error instanceof NixcacheError) || signal?.aborted) throw error;
      warn(`${storeHash} could not be looked for: ${error.message}`);
      return true;
    }
  }
  return false;
}

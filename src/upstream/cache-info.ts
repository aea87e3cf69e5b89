/** `nix-cache-info`: what a binary cache says of itself. */
import { messageOf, NixcacheError, preview } from "../errors.ts";
import { STORE_DIR } from "../nar/store-path.ts";
import { readText } from "./body.ts";
import type { Upstream } from "./client.ts";
import { UpstreamFailure } from "./failure.ts";

export interface CacheInfo {
  /** Lower is asked first. */
  readonly priority: number;
}

const MAX_BYTES = 64 * 1024;

/** Undefined when the upstream has none. @throws `unreachable`, also for another store folder than ours. */
export async function readCacheInfo(
  upstream: Upstream,
  signal?: AbortSignal,
): Promise<CacheInfo | undefined> {
  const response = await upstream.request("nix-cache-info", { method: "GET", signal, encoded: true });
  if (response === undefined) return undefined;
  try {
    return parseCacheInfo(await readText(response, MAX_BYTES));
  } catch (cause) {
    if (cause instanceof UpstreamFailure) throw cause;
    const message = `GET ${upstream.url}/nix-cache-info: ${messageOf(cause)}`;
    throw new UpstreamFailure(message, { status: response.status, cause });
  }
}

/** Unknown names are passed over. @throws `corrupt` for what is none: a page to sign in at, say. */
export function parseCacheInfo(text: string): CacheInfo {
  const fields = new Map(
    text
      .split("\n")
      .filter((line) => line.includes(": "))
      .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]),
  );
  const storeDir = fields.get("StoreDir");
  if (storeDir !== STORE_DIR) {
    throw new NixcacheError("corrupt", `got ${preview(storeDir ?? text)}, expected StoreDir: ${STORE_DIR}`);
  }
  // Nix takes a missing priority for 0, which comes before all others.
  const priority = fields.get("Priority") ?? "0";
  if (!/^\d{1,9}$/.test(priority)) {
    throw new NixcacheError("corrupt", `got Priority: ${preview(priority)}, expected a number`);
  }
  return { priority: Number(priority) };
}

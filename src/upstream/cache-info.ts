/** `nix-cache-info`: what a binary cache says of itself. */
import { NixcacheError, preview } from "../errors.ts";
import { STORE_DIR } from "../nar/store-path.ts";

export const CACHE_INFO_PATH = "nix-cache-info";

export const MAX_CACHE_INFO_BYTES = 64 * 1024;

export interface CacheInfo {
  /** Lower is asked first. */
  readonly priority: number;
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

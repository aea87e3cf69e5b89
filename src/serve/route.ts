/**
 * What a request asks for, by its method and path. The binary cache protocol of Nix:
 * https://nix.dev/manual/nix/latest/protocols/binary-cache
 */
import { isStoreHash } from "../nar/store-path.ts";

export type Route =
  | { readonly kind: "cache-info" | "public-key" | "status" | "refresh" | "not-found" }
  | { readonly kind: "method-not-allowed"; readonly allow: string }
  | { readonly kind: "narinfo"; readonly storeHash: string }
  /** `file` is the last component, by which the index knows it; `path` is what an upstream is asked for. */
  | { readonly kind: "nar"; readonly file: string; readonly path: string };

const READ = "GET, HEAD";

/** What may stand in the URL of a NAR: no separators, nothing that an upstream's URL could be bent with. */
const NAR_FILE = /^[A-Za-z0-9][A-Za-z0-9._+=-]*$/;

/** @param url absolute, or a bare path as a request without Host has it */
export function route(method: string, url: string): Route {
  const path = pathOf(url);
  if (path === undefined) return { kind: "not-found" };
  if (path === "_refresh") return method === "POST" ? { kind: "refresh" } : notAllowed("POST");
  const found = readRoute(path);
  if (found.kind === "not-found" || method === "GET" || method === "HEAD") return found;
  return notAllowed(READ);
}

function readRoute(path: string): Route {
  if (path === "nix-cache-info") return { kind: "cache-info" };
  if (path === "public-key") return { kind: "public-key" };
  if (path === "_status") return { kind: "status" };
  if (path.endsWith(".narinfo")) {
    const storeHash = path.slice(0, -".narinfo".length);
    return isStoreHash(storeHash) ? { kind: "narinfo", storeHash } : { kind: "not-found" };
  }
  const file = path.startsWith("nar/") ? path.slice("nar/".length) : "";
  return NAR_FILE.test(file) ? { kind: "nar", file, path } : { kind: "not-found" };
}

/** The path without its leading slash, percent escapes decoded once; undefined for a malformed one. */
function pathOf(url: string): string | undefined {
  const start = url.startsWith("/") ? 0 : url.indexOf("/", url.indexOf("://") + 3);
  const query = url.indexOf("?", start);
  const raw = url.slice(start + 1, query === -1 ? undefined : query);
  if (!raw.includes("%")) return raw;
  try {
    return decodeURIComponent(raw);
  } catch {
    return undefined;
  }
}

function notAllowed(allow: string): Route {
  return { kind: "method-not-allowed", allow };
}

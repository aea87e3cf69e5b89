/**
 * What a request asks for, by its method and path. The binary cache protocol of Nix:
 * https://nix.dev/manual/nix/latest/protocols/binary-cache
 */
import { isStoreHash } from "../nar/store-path.ts";

export type Route =
  | { readonly kind: "cache-info" | "public-key" | "status" | "refresh" | "metrics" | "not-found" }
  | { readonly kind: "method-not-allowed"; readonly allow: string }
  | { readonly kind: "narinfo" | "listing"; readonly storeHash: string }
  /** Files that stand beside narinfos: `log/…`, `realisations/…`, `build-trace-v2/…`, `debuginfo/…`. */
  | { readonly kind: "attached"; readonly path: string }
  /** A file of the page for people, or what it asks for: `` is the page itself. */
  | { readonly kind: "page"; readonly path: string; readonly query: string }
  /** `file` is the last component, by which the index knows it; `path` is what an upstream is asked for. */
  | { readonly kind: "nar"; readonly file: string; readonly path: string };

const READ = "GET, HEAD";

/** What may stand in the URL of a NAR: no separators, nothing that an upstream's URL could be bent with. */
const NAR_FILE = /^[A-Za-z0-9][A-Za-z0-9._+=-]*$/;

const HASH_FILES = [
  [".narinfo", "narinfo"],
  [".ls", "listing"],
] as const;

/** One or two components, of what derivation names, output names and hashes are made of. */
const ATTACHED = /^(?:log|realisations|build-trace-v2|debuginfo)(?:\/[A-Za-z0-9][A-Za-z0-9._+?=!:-]*){1,2}$/;

/** @param url absolute, or a bare path as a request without Host has it */
export function route(method: string, url: string): Route {
  const { path, query } = split(url);
  if (path === undefined) return { kind: "not-found" };
  if (path === "_refresh") return method === "POST" ? { kind: "refresh" } : notAllowed("POST");
  const found = readRoute(path, query);
  if (found.kind === "not-found" || method === "GET" || method === "HEAD") return found;
  return notAllowed(READ);
}

function readRoute(path: string, query: string): Route {
  if (path === "nix-cache-info") return { kind: "cache-info" };
  if (path === "public-key") return { kind: "public-key" };
  if (path === "_status") return { kind: "status" };
  if (path === "metrics") return { kind: "metrics" };
  if (path === "" || path.startsWith("_page/")) return { kind: "page", path, query };
  for (const [ending, kind] of HASH_FILES) {
    if (!path.endsWith(ending)) continue;
    const storeHash = path.slice(0, -ending.length);
    if (isStoreHash(storeHash)) return { kind, storeHash };
  }
  if (ATTACHED.test(path)) return { kind: "attached", path };
  const file = path.startsWith("nar/") ? path.slice("nar/".length) : "";
  // Some upstreams name the store path in the query.
  return NAR_FILE.test(file) ? { kind: "nar", file, path: path + query } : { kind: "not-found" };
}

/** The path without its leading slash, escapes decoded once, undefined for malformed ones; the query as it is. */
function split(url: string): { path: string | undefined; query: string } {
  const start = url.startsWith("/") ? 0 : url.indexOf("/", url.indexOf("://") + 3);
  const mark = url.indexOf("?", start);
  const end = mark === -1 ? url.length : mark;
  // A cache URL that ends in a slash gives two of them.
  const raw = url.slice(start, end).replace(/^\/+/, "");
  const query = url.slice(end);
  if (!raw.includes("%")) return { path: raw, query };
  try {
    return { path: decodeURIComponent(raw), query };
  } catch {
    return { path: undefined, query };
  }
}

function notAllowed(allow: string): Route {
  return { kind: "method-not-allowed", allow };
}

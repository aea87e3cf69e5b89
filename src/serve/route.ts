/**
 * What a request asks for, by its method and path. The binary cache protocol of Nix:
 * https://nix.dev/manual/nix/latest/protocols/binary-cache
 */
import { isAttachedPath } from "../cache/attachment.ts";
import { isStoreHash } from "../nar/store-path.ts";

export type Route =
  | {
      readonly kind:
        | "cache-info"
        | "public-key"
        | "status"
        | "refresh"
        | "metrics"
        | "not-found"
        | "bad-request";
    }
  | { readonly kind: "method-not-allowed"; readonly allow: string }
  | { readonly kind: "narinfo" | "listing"; readonly storeHash: string }
  /** Files that stand beside narinfos: `log/…`, `realisations/…`, `build-trace-v2/…`, `debuginfo/…`. */
  | { readonly kind: "attached"; readonly path: string }
  /** A file of the page for people, or what it asks for: `` is the page itself. */
  | { readonly kind: "page"; readonly path: string; readonly query: string }
  /** `file` is the last component, by which the index knows it; `path` is what an upstream is asked for. No query counts. */
  | { readonly kind: "nar"; readonly file: string; readonly path: string }
  /** A file that a narinfo of an upstream named, with its query. The id tells whose, and that it did: `nar-url.ts`. */
  | { readonly kind: "from"; readonly id: string; readonly path: string };

const READ = "GET, HEAD";

/** What may stand in the URL of a NAR: no separators, nothing that an upstream's URL could be bent with. */
const NAR_FILE = /^[A-Za-z0-9][A-Za-z0-9._+=-]*$/;

/** Components that are neither empty nor go up, and that end nothing: the path is put behind an upstream's URL. */
const FROM = /^from\/([0-9a-f]{32})\/((?:(?!\.\.?(?:\/|$))[^/\\?#\p{Cc}\p{Cs}]+(?:\/(?!$)|$))+)$/u;

const HASH_FILES = [
  [".narinfo", "narinfo"],
  [".ls", "listing"],
] as const;

/** @param url absolute, or a bare path as a request without Host has it */
export function route(method: string, url: string): Route {
  const { path, query } = split(url);
  if (typeof path !== "string") return path;
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
  if (isAttachedPath(path)) return { kind: "attached", path };
  const [, id, rest] = FROM.exec(path) ?? [];
  if (id !== undefined && rest !== undefined) return { kind: "from", id, path: encodeURI(rest) + query };
  const file = path.startsWith("nar/") ? path.slice("nar/".length) : "";
  return NAR_FILE.test(file) ? { kind: "nar", file, path } : { kind: "not-found" };
}

/** What nginx calls a bad request, too. Escapes may stand for any other byte. */
const MALFORMED = /%(?![\da-f]{2})|%00/i;

/**
 * The path without its leading slash, escapes decoded once and slashes merged; what stands for it when it has no
 * meaning. The query as it is.
 */
function split(url: string): { path: string | Route; query: string } {
  const start = url.startsWith("/") ? 0 : url.indexOf("/", url.indexOf("://") + 3);
  const mark = url.indexOf("?", start);
  const end = mark === -1 ? url.length : mark;
  const query = url.slice(end);
  let path = url.slice(start + 1, end);
  if (path.includes("%")) {
    if (MALFORMED.test(path)) return { path: { kind: "bad-request" }, query };
    try {
      path = decodeURIComponent(path);
    } catch {
      // Not UTF-8, and no path of ours is anything but ASCII.
      return { path: { kind: "not-found" }, query };
    }
  }
  // A cache URL that ends in a slash gives two of them.
  if (path.startsWith("/") || path.includes("//")) path = path.replace(/^\/+/, "").replace(/\/{2,}/g, "/");
  return { path, query };
}

function notAllowed(allow: string): Route {
  return { kind: "method-not-allowed", allow };
}

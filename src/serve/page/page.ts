/**
 * The page for people at `/`, and what it asks for under `/_page/`.
 *
 * Its core is HTML from here, readable without scripts; `client/` fills in the rest. What it shows was written by
 * strangers, so texts are escaped here and set as text there, and the policy below lets no other code run.
 * https://developer.mozilla.org/en-US/docs/Web/HTTP/Guides/CSP
 */
import { text } from "../respond.ts";
import { ASSETS } from "./assets.ts";
import { answerData, overview, type PageData } from "./data.ts";
import { renderDocument } from "./document.ts";

export type Page = (path: string, query: string, request: Request) => Response | Promise<Response>;

const POLICY = [
  "default-src 'none'",
  ...["script-src", "style-src", "img-src", "connect-src"].map((kind) => `${kind} 'self'`),
  ...["base-uri", "form-action", "frame-ancestors"].map((kind) => `${kind} 'none'`),
  "require-trusted-types-for 'script'",
].join("; ");

const HEADERS = {
  "content-security-policy": POLICY,
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
};

const FRESH = { ...HEADERS, "cache-control": "no-store" };

export function createPage(data: PageData): Page {
  return async (path, query, request) => {
    const { method } = request;
    if (path === "") {
      const keys = data.caches.flatMap(({ catalog }) => catalog.newest().keys());
      const document = renderDocument(overview(data), [...new Set(keys)], originOf(request));
      return text(method, 200, document, { ...FRESH, "content-type": "text/html; charset=utf-8" });
    }
    const asset = ASSETS.get(path);
    if (asset !== undefined) {
      const kept = { "cache-control": "public, max-age=31536000, immutable", "content-type": asset.type };
      return text(method, 200, asset.text, { ...HEADERS, ...kept });
    }
    const name = path.slice("_page/".length);
    const found = await answerData(name, new URLSearchParams(query), data, request.signal);
    const json = { ...FRESH, "content-type": "application/json" };
    return found === undefined
      ? text(method, 404, "null\n", json)
      : text(method, 200, `${JSON.stringify(found)}\n`, json);
  };
}

/** How the person's browser reaches us. Behind a proxy that speaks TLS the script knows better. */
function originOf(request: Request): string {
  return URL.parse(request.url)?.origin ?? "http://127.0.0.1:37515";
}

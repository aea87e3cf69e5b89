/**
 * The URL of an upstream's narinfo, so that a client that resolves it against us gets to the NAR.
 *
 * Nix resolves it against the URL of the cache that gave the narinfo. `nar/<file>` we pass on under the same path,
 * and a full URL the client fetches by itself; any other path gets a prefix that names its upstream. No signature
 * covers the URL.
 */
import { preview } from "../errors.ts";
import { UpstreamFailure } from "../upstream/failure.ts";
import { route } from "./route.ts";

/** Printable ASCII; what follows a # would not be sent. https://www.rfc-editor.org/rfc/rfc3986#section-2 */
const URL_CHARACTERS = /^[!-"$-~]+$/;

/** They are kept in memory by the ten thousand. */
const MAX_URL_LENGTH = 1024;

const URL_LINES = /^URL: (.*)$/gm;

/**
 * @param upstreamId as in the route `from/<id>/…`
 * @throws `unreachable` for a URL that leaves the upstream
 */
export function withReachableUrl(narinfo: string, upstreamId: string): { text: string; url: string } {
  const urls = Array.from(narinfo.matchAll(URL_LINES), (found) => found[1] ?? "");
  const [url = ""] = urls;
  // Readers differ in which of two counts.
  if (urls.length !== 1) throw wrongUrl(urls.join(" "));
  if (url.length > MAX_URL_LENGTH || !URL_CHARACTERS.test(url)) throw wrongUrl(url);
  if (/^https?:\/\//i.test(url) && URL.canParse(url)) return { text: narinfo, url };
  // Against another cache it would mean another server, or the top of that one.
  if (/^\/|^[^?]*\/\//.test(url)) throw wrongUrl(url);
  const own = route("GET", `/${url}`);
  if (own.kind === "nar" && own.path === url) return { text: narinfo, url };
  const prefixed = `from/${upstreamId}/${url}`;
  if (route("GET", `/${prefixed}`).kind !== "from") throw wrongUrl(url);
  return { text: narinfo.replace(URL_LINES, () => `URL: ${prefixed}`), url: prefixed };
}

function wrongUrl(url: string): UpstreamFailure {
  const message = `got a narinfo with URL ${preview(url)}, expected one file within its cache`;
  return new UpstreamFailure(message, { status: 200 });
}

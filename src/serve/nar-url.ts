/**
 * The URL of an upstream's narinfo, so that a client that resolves it against us gets to the NAR.
 *
 * Nix resolves it against the URL of the cache that gave the narinfo. A full URL the client fetches by itself. `nar/<file>`
 * stays as it is for one upstream, the first: such a URL may be remembered by clients for a month, and does not say whose
 * it is. Any other gets a prefix that only we can make, so that nobody has us ask an upstream for what it has not named.
 * No signature covers the URL.
 */
import { preview } from "../errors.ts";
import { UpstreamFailure } from "../upstream/failure.ts";
import { route } from "./route.ts";

/** Printable ASCII; what follows a # would not be sent. https://www.rfc-editor.org/rfc/rfc3986#section-2 */
const URL_CHARACTERS = /^[!-"$-~]+$/;

/** They are kept in memory by the ten thousand. */
const MAX_URL_LENGTH = 1024;

const URL_LINES = /^URL: (.*)$/gm;

/** How the NARs of an upstream are named here. */
export interface NarNames {
  /** Whether `nar/<file>` means this upstream's. */
  readonly isFirst: boolean;
  /** The id in `from/<id>/…` of a path and query below this upstream, as the route has them: 32 hexadecimal characters. */
  idOf(path: string): string;
}

/** Any id has this form. */
const SOME_ID = "0".repeat(32);

/** @throws `unreachable` for a URL that leaves the upstream */
export function withReachableUrl(
  narinfo: string,
  { isFirst, idOf }: NarNames,
): { text: string; url: string } {
  const urls = Array.from(narinfo.matchAll(URL_LINES), (found) => found[1] ?? "");
  const [url = ""] = urls;
  // Readers differ in which of two counts.
  if (urls.length !== 1) throw wrongUrl(urls.join(" "));
  if (url.length > MAX_URL_LENGTH || !URL_CHARACTERS.test(url)) throw wrongUrl(url);
  if (/^https?:\/\//i.test(url) && URL.canParse(url)) return { text: narinfo, url };
  // Against another cache it would mean another server, or the top of that one.
  if (/^\/|^[^?]*\/\//.test(url)) throw wrongUrl(url);
  const own = route("GET", `/${url}`);
  if (isFirst && own.kind === "nar" && own.path === url) return { text: narinfo, url };
  const from = route("GET", `/from/${SOME_ID}/${url}`);
  if (from.kind !== "from") throw wrongUrl(url);
  const prefixed = `from/${idOf(from.path)}/${url}`;
  return { text: narinfo.replace(URL_LINES, () => `URL: ${prefixed}`), url: prefixed };
}

function wrongUrl(url: string): UpstreamFailure {
  const message = `got a narinfo with URL ${preview(url)}, expected one file within its cache`;
  return new UpstreamFailure(message, { status: 200 });
}

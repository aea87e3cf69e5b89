/**
 * Who may write: whoever knows the token, as `Authorization: Bearer TOKEN`, or as the password of any user, which is
 * what Nix sends for a line in its netrc file. Without a token whoever is on this machine, which a proxy there is as well:
 * so what came through one needs the token. A proxy may hide that it is one; then nobody can tell here.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { isAddressOrLocalhost } from "../serve/guard.ts";
import { Refusal } from "./refusal.ts";

/** What proxies add. RFC 7239, RFC 9110 7.6.3, and what nginx, HAProxy, Apache, Cloudflare and others are set up to send. */
const FORWARDED =
  /^(?:forwarded|via|x-forwarded(?:-.*)?|x-real-ip|x-client-ip|x-cluster-client-ip|x-original-.*|x-envoy-.*|true-client-ip|client-ip|cf-.*|fly-.*|fastly-.*|x-amzn-.*|x-azure-.*|cdn-loop)$/;

/** @throws Refusal (401) for a request that came through a proxy, or names this machine as others do. */
export function checkLocal(headers: Headers): void {
  const header = [...headers.keys()].find((name) => FORWARDED.test(name));
  if (header === undefined && isAddressOrLocalhost(headers.get("host") ?? "")) return;
  const why = header === undefined ? "its Host is another than an address" : `it has the header ${header}`;
  throw new Refusal(
    401,
    `this upload came through a proxy (${why}), and without a token only this machine may write: start serve with --write-token-file`,
  );
}

/** @throws Refusal (401) unless the request carries the token. */
export function checkToken(token: string, headers: Headers): void {
  const [, scheme = "", credentials = ""] = /^(\S+)\s+(.*)$/.exec(headers.get("authorization") ?? "") ?? [];
  if (isSame(token, given(scheme.toLowerCase(), credentials.trim()))) return;
  throw new Refusal(
    401,
    "writing needs the token: put it into Nix's netrc file as the password of this host (see netrc-file in nix.conf)",
    { "www-authenticate": 'Basic realm="nixcache", charset="UTF-8"' },
  );
}

function given(scheme: string, credentials: string): string {
  if (scheme === "bearer") return credentials;
  if (scheme !== "basic") return "";
  const text = Buffer.from(credentials, "base64").toString();
  return text.slice(text.indexOf(":") + 1);
}

/** Takes as long for any text: hashes of one length are compared, and their bytes say nothing of the token's. */
function isSame(token: string, text: string): boolean {
  const hash = (value: string) => createHash("sha256").update(value).digest();
  return timingSafeEqual(hash(token), hash(text));
}

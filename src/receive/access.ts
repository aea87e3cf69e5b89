/**
 * Who may write: whoever knows the token, as `Authorization: Bearer TOKEN`, or as the password of any user, which is
 * what Nix sends for a line in its netrc file.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { Refusal } from "./refusal.ts";

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

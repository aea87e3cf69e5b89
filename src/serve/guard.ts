/**
 * Keeps web pages of others away. A page that somebody opens in a browser can send requests to this machine: as
 * another site (https://owasp.org/www-community/attacks/csrf), or as ours, by a name of its own that it lets
 * resolve to 127.0.0.1 (https://en.wikipedia.org/wiki/DNS_rebinding). So a request that changes something must not
 * come from another site, and on loopback one that changes or lists something must name us by a known name.
 *
 * What is asked for by its hash is not guarded: nobody can list that, and Nix clients and proxies name us as they
 * like. On a network anybody may ask, by any name, so there names are not looked at.
 */
import { isIP } from "node:net";
import { preview } from "../errors.ts";

/**
 * Why a request is refused, as a sentence for its sender; undefined when it may pass.
 * @param of `programs`: no page of another site may ask for it, although it changes nothing
 */
export type Guard = (
  request: Pick<Request, "method" | "headers">,
  of?: "everybody" | "programs",
) => string | undefined;

export interface GuardOptions {
  /** The address that the server listens on. */
  readonly hostname: string;
  /** Names that it is known by besides. */
  readonly allowHosts?: readonly string[];
}

export function createGuard({ hostname, allowHosts = [] }: GuardOptions): Guard {
  const known = new Set([hostname, ...allowHosts].map(normal));
  const isKnown = (name: string) => isIP(name) !== 0 || isLocalhost(name) || known.has(name);
  const checksNames = isLoopback(hostname);
  return ({ method, headers }, of = "everybody") => {
    const host = headers.get("host");
    // Browsers always send one.
    const name = host === null ? undefined : hostName(host);
    if (checksNames && host !== null && (name === undefined || !isKnown(name))) {
      return `the host name ${preview(host)} is not known here; allow it with: nixcache serve --allow-host NAME`;
    }
    const isForPrograms = of === "programs" || (method !== "GET" && method !== "HEAD");
    return isForPrograms && isCrossSite(headers, host)
      ? "requests of other sites' pages are refused; send it from a program, such as curl"
      : undefined;
  };
}

/** Whether nobody but this machine reaches an address to listen on. */
export function isLoopback(hostname: string): boolean {
  const name = normal(hostname);
  return isLocalhost(name) || (isIP(name) === 4 && name.startsWith("127.")) || name === "::1";
}

/** Browsers resolve `localhost` and names below it without asking anybody. */
function isLocalhost(name: string): boolean {
  return name === "localhost" || name.endsWith(".localhost");
}

/** Whether a Host header names this machine as only those on it do, or by an address. */
export function isAddressOrLocalhost(host: string): boolean {
  const name = hostName(host);
  return name !== undefined && (isIP(name) !== 0 || isLocalhost(name));
}

/** The name or address in a Host header. */
function hostName(host: string): string | undefined {
  const [, name] = /^(\[[\da-fA-F:.]+\]|[^:[\]/@\s]+)(?::\d{1,5})?$/.exec(host) ?? [];
  return name === undefined ? undefined : normal(name);
}

function normal(name: string): string {
  return name
    .toLowerCase()
    .replace(/^\[(.*)\]$/, "$1")
    .replace(/\.$/, "");
}

/** Programs send none of these headers. Sites of the same domain are other sites, too. */
function isCrossSite(headers: Headers, host: string | null): boolean {
  const site = headers.get("sec-fetch-site");
  if (site !== null) return site !== "same-origin" && site !== "none";
  const from = headers.get("origin") ?? headers.get("referer");
  if (from === null) return false;
  const url = URL.parse(from);
  // Behind a proxy that speaks TLS the scheme is another.
  return url === null || host === null || url.host !== hostWithoutDefaultPort(host, url.protocol);
}

function hostWithoutDefaultPort(host: string, protocol: string): string | undefined {
  return URL.parse(`${protocol}//${host}`)?.host;
}

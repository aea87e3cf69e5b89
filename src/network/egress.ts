/**
 * The one door to the network: where requests may go. A server that a person has named may be asked for anything. Where it
 * leads us besides (a redirect, the place of an upload, a token realm) is a stranger's word, and we stand where strangers do
 * not: on this machine, in its networks, beside the metadata service of a cloud
 * (https://owasp.org/www-community/attacks/Server_Side_Request_Forgery).
 *
 * So it may lead to public addresses, and to others only where it is such a one itself; never to where we listen ourselves.
 * Every address of a name is looked at. A name over plain HTTP is then asked by the address that was looked at, so that it
 * cannot mean another one a moment later; over HTTPS a certificate for that name keeps others from answering.
 */

import { messageOf, NixcacheError, systemCode } from "../errors.ts";
import { literalAddress, REACHES, type Reach, reachOf } from "./address.ts";

export type Send = (url: string, init: RequestInit) => Promise<Response>;

/** What is known of names and addresses without asking them. */
export interface Names {
  /** All addresses of a host name. @throws with the code `ENOTFOUND` where it has none */
  lookup(name: string): Promise<readonly string[]>;
  /** Whether a proxy is asked for this URL: then its names are looked up there. */
  isProxied(url: string): boolean;
  /** Whether a name may be replaced by its address without changing the way to it. */
  readonly mayPin: boolean;
  /** Whether it is an address of this machine. */
  isHere(address: string): boolean;
  /** Whether we ourselves listen there. */
  isOwn(address: string, port: number): boolean;
}

/** The network. Only `outward` may use its `fetch`. */
export interface Web {
  readonly fetch: Send;
  readonly names: Names;
}

/** A server has led to where it may not. */
export class LedAstray extends NixcacheError {}

export const ASTRAY_HINT =
  "If that is meant, name the server by its own address in that network, or have it send files itself, without redirects.";

const WORDS: Readonly<Record<Exclude<Reach, "public">, string>> = {
  private: "an address of a private network",
  "link-local": "a link-local address",
  loopback: "an address of this machine",
};

/**
 * fetch, for requests to a server and to where it leads. Redirects come back as they are.
 * @param home the server that a person has named
 * @throws LedAstray
 */
export function outward(web: Web, home: URL): Send {
  return async (url, init) => {
    const target = new URL(url);
    const asked = { ...init, redirect: "manual" } as const;
    if (target.origin === home.origin) return web.fetch(url, asked);
    const addresses = await admitted(web.names, home, target, init);
    return sendTo(web.fetch, target, addresses, asked);
  };
}

/** The addresses to ask in the place of the name; none where the name itself is asked. @throws LedAstray */
async function admitted(
  names: Names,
  home: URL,
  target: URL,
  { method = "GET", signal }: RequestInit,
): Promise<readonly string[]> {
  const literal = literalAddress(target.hostname);
  const isLookedUp = literal === undefined && !names.isProxied(target.href);
  const found =
    literal !== undefined ? [literal] : isLookedUp ? await addressesOf(names, target, signal) : [];
  const refuse = (address: string, words: string) => {
    const at = address === target.hostname ? "" : ` (${address})`;
    const what = `${method} ${target.host}${target.pathname}`;
    return new LedAstray(
      "protocol",
      `${what}: ${home.host} leads there, and ${target.hostname}${at} is ${words}`,
      {
        hint: ASTRAY_HINT,
      },
    );
  };
  const own = found.find((address) => names.isOwn(address, portOf(target)));
  if (own !== undefined) throw refuse(own, "where this very program listens");
  for (const address of found) {
    const reach = reachOfAny(names, address);
    if (reach !== "public" && !mayLead(await reachOfHome(names, home, signal), reach))
      throw refuse(address, WORDS[reach]);
  }
  return isLookedUp && names.mayPin && target.protocol === "http:" ? found : [];
}

/** Whether a server within `from` may lead to what is within `to`. */
function mayLead(from: Reach, to: Reach): boolean {
  return from === to || (from === "loopback" && to === "private");
}

/** Where others cannot reach what listens at a public address of this machine, we would. */
function reachOfAny(names: Names, address: string): Reach {
  const reach = reachOf(address);
  return reach === "public" && names.isHere(address) ? "loopback" : reach;
}

/** The widest of all its addresses: a name must not become one of this machine by an address more. */
async function reachOfHome(names: Names, home: URL, signal: RequestInit["signal"]): Promise<Reach> {
  const literal = literalAddress(home.hostname);
  if (literal !== undefined) return reachOfAny(names, literal);
  const found = await addressesOf(names, home, signal).catch(() => []);
  const reaches = new Set(found.map((address) => reachOfAny(names, address)));
  return REACHES.find((reach) => reaches.has(reach)) ?? "public";
}

/** @throws what looking it up does, and the reason of the signal when that fires first */
async function addressesOf(
  names: Names,
  { hostname }: URL,
  signal: RequestInit["signal"],
): Promise<readonly string[]> {
  signal?.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal?.reason);
  signal?.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([names.lookup(hostname.replace(/\.+$/, "")), aborted.promise]);
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

/** One address after the other, where a request can be made again. */
async function sendTo(
  send: Send,
  target: URL,
  addresses: readonly string[],
  init: RequestInit,
): Promise<Response> {
  if (addresses.length === 0) return send(target.href, init);
  const headers = new Headers(init.headers);
  headers.set("host", target.host);
  const canRepeat = !(init.body instanceof ReadableStream);
  for (let at = 0; ; at++) {
    const url = new URL(target);
    const address = addresses[at] ?? "";
    url.hostname = address.includes(":") ? `[${address.replace(/%.*$/, "")}]` : address;
    try {
      return await send(url.href, { ...init, headers });
    } catch (error) {
      const isClosed = /REFUSED|UNREACH|TIMEDOUT/i.test(systemCode(error) ?? "");
      if (!canRepeat || !isClosed || at + 1 >= addresses.length) throw error;
    }
  }
}

function portOf({ port, protocol }: URL): number {
  return Number(port || (protocol === "https:" ? 443 : 80));
}

const MAX_HOPS = 5;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** One answer, and how to be rid of it. */
export interface Hop {
  readonly response: Response;
  /** Ends the exchange; safe to call at any time, also twice. */
  readonly close: () => void;
}

/**
 * Follows redirects.
 * @param what the request, for messages
 * @param send one request, by `outward`; it decides which headers go to which origin
 * @returns the answer that is no redirect, and where it came from
 * @throws `protocol` for too many, for an address that is none, and for one that leaves HTTPS
 */
export async function follow<T extends Hop>(
  first: URL,
  what: string,
  send: (url: URL) => Promise<T>,
): Promise<T & { readonly url: URL }> {
  let url = first;
  for (let hops = 0; ; hops++) {
    const hop = await send(url);
    const location = hop.response.headers.get("location");
    if (!REDIRECTS.has(hop.response.status) || location === null) return { ...hop, url };
    hop.close();
    if (hops >= MAX_HOPS) throw new NixcacheError("protocol", `${what}: got more than ${MAX_HOPS} redirects`);
    url = resolveLocation(url, location, what);
  }
}

/**
 * The address that a Location header means, without user and password.
 * @throws `protocol` when it is none, or would leave HTTPS.
 */
export function resolveLocation(base: URL, location: string, what: string): URL {
  let url: URL;
  try {
    url = new URL(location, base);
  } catch (cause) {
    throw new NixcacheError("protocol", `${what}: got a Location that is no URL (${messageOf(cause)})`, {
      cause,
    });
  }
  if (url.protocol !== "https:" && !(url.protocol === "http:" && base.protocol === "http:")) {
    throw new NixcacheError(
      "protocol",
      `${what}: got a Location from ${base.protocol} to ${url.protocol}, expected https:`,
      {
        hint: "Behind a proxy that ends TLS, let the registry write relative locations (distribution: http.relativeurls) or pass X-Forwarded-Proto.",
      },
    );
  }
  url.username = "";
  url.password = "";
  return url;
}

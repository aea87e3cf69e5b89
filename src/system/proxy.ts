/**
 * HTTP proxies, as the environment names them. Bun's fetch and Nix (curl) read the same variables, by rules of their
 * own, and both send to a proxy what is for this machine, where no proxy can reach it.
 * https://curl.se/docs/manpage.html#ENVIRONMENT
 *
 * A proxy's URL may have a password in it: no message holds more of it than the name of the variable.
 */
import { messageOf, systemCode } from "../errors.ts";
import type { Fetch } from "./certificates.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/** What is on this machine. `.localhost` stands for `localhost` too, as Bun reads it. */
const LOOPBACK = ["localhost", ".localhost", "127.0.0.1", "127.0.0.0/8", "::1", "0.0.0.0"];

const [LOWER, UPPER] = ["no_proxy", "NO_PROXY"] as const;

/** The variables by which nothing for this machine goes to a proxy; the user's own exceptions stay. */
export function withoutProxyForLoopback(env: Environment): { no_proxy: string; NO_PROXY: string } {
  const list = [...new Set([env[LOWER], env[UPPER], ...LOOPBACK].filter(Boolean))].join(",");
  return { no_proxy: list, NO_PROXY: list };
}

/** Who asks: our own fetch, or Nix by way of curl, which takes HTTP_PROXY in small letters alone. */
export type Client = "bun" | "curl";

/** The variable that names the proxy by which `url` is asked for; undefined where none does. */
export function proxyVariable(url: string, env: Environment, client: Client): string | undefined {
  const { protocol, hostname } = new URL(url);
  const name = proxyOf(protocol, env, client);
  if (name === undefined) return undefined;
  return isExcepted(hostname, env[LOWER] || env[UPPER] || "") ? undefined : name;
}

/** Whether our own fetch asks a proxy for URLs of this protocol, such as `http:`, whatever is excepted. */
export function hasProxy(protocol: string, env: Environment): boolean {
  return proxyOf(protocol, env, "bun") !== undefined;
}

function proxyOf(protocol: string, env: Environment, client: Client): string | undefined {
  const own = protocol === "https:" ? ["https_proxy", "HTTPS_PROXY"] : ["http_proxy", "HTTP_PROXY"];
  const names = [
    ...(client === "curl" && protocol === "http:" ? own.slice(0, 1) : own),
    "all_proxy",
    "ALL_PROXY",
  ];
  return names.find((variable) => env[variable]);
}

/** Whether a list such as `.example.org,10.0.0.0/8` names the host. */
function isExcepted(hostname: string, list: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, "").toLowerCase();
  return list
    .toLowerCase()
    .split(/[\s,]+/)
    .filter((entry) => entry !== "")
    .some((entry) => {
      if (entry === "*") return true;
      const [network, bits] = entry.split("/");
      if (bits !== undefined) return isInNetwork(host, network ?? "", Number(bits));
      // A colon alone is a port; several are an IPv6 address.
      const name = entry
        .replace(/^\[|\]$/g, "")
        .replace(/^([^:]*):\d+$/, "$1")
        .replace(/^\*?\./, "");
      return host === name || host.endsWith(`.${name}`);
    });
}

function isInNetwork(host: string, network: string, bits: number): boolean {
  const [address, base] = [numberOf(host), numberOf(network)];
  if (address === undefined || base === undefined || !(bits >= 0 && bits <= 32)) return false;
  const size = 2 ** (32 - bits);
  return Math.floor(address / size) === Math.floor(base / size);
}

/** Of an IPv4 address. */
function numberOf(text: string): number | undefined {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text)?.slice(1).map(Number);
  return parts?.reduce((sum, part) => sum * 256 + part, 0);
}

/** A request that did not get to its proxy, or not past it. */
export class ProxyFailure extends Error {
  override readonly name = "ProxyFailure";
  readonly code: "ProxyConnectionRefused" | "ProxyFailure";

  constructor(variable: string, { text, refused }: Reason, cause: unknown) {
    super(`${text} (the proxy is the one that ${variable} names)`, { cause });
    this.code = refused ? "ProxyConnectionRefused" : "ProxyFailure";
  }
}

interface Reason {
  readonly text: string;
  /** Whether another try is of little use. */
  readonly refused: boolean;
}

/** Undefined for what may as well be of the server behind it, such as its certificate. */
function reasonOf(error: unknown): Reason | undefined {
  const code = systemCode(error) ?? "";
  if (/REFUSED/i.test(code))
    return { text: "nobody listens at the proxy (connection refused)", refused: true };
  // Behind a proxy no name is looked up but its own.
  if (code === "ENOTFOUND") return { text: "the proxy has no address (DNS)", refused: true };
  if (code === "UnsupportedProxyProtocol")
    return { text: "the proxy is of a kind that is not known, expected http://", refused: true };
  return code === "ERR_PROXY_TUNNEL" ? { text: messageOf(error), refused: false } : undefined;
}

/** `send`, with failures that say when they are of a proxy. */
export function tellingOfProxies(env: Environment, send: Fetch): Fetch {
  return async (url, init) => {
    try {
      return await send(url, init);
    } catch (error) {
      const reason = reasonOf(error);
      const variable = reason && proxyVariable(url, env, "bun");
      throw variable === undefined ? error : new ProxyFailure(variable, reason as Reason, error);
    }
  };
}

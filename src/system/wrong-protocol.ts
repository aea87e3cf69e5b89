/**
 * What a server speaks that fetch cannot talk to: fetch says the same of one that speaks plain HTTP in the place of TLS,
 * of one that speaks HTTP/2 alone, and of one that refuses us; and a server of TLS hangs up on plain HTTP.
 */
import { connect } from "node:tls";
import type { WrongProtocol } from "../connection.ts";
import { systemCode } from "../errors.ts";
import type { Fetch } from "./certificates.ts";

/** For one attempt to talk to a server, in milliseconds. */
const HANDSHAKE_MS = 1_000;

/** Origins that are known to speak HTTP: a registry, its storage hosts, upstreams. */
const MOST_KNOWN = 1_000;

/** `send`, whose errors say what the server speaks instead. */
export function tellingProtocols(send: Fetch): Fetch {
  /** They do not speak TLS. */
  const plain = new Set<string>();
  const isTls = async (url: string, origin: string): Promise<boolean> => {
    if ((await handshake(url)) === "tls") return true;
    remember(origin);
    return false;
  };
  const remember = (origin: string) => {
    if (plain.size < MOST_KNOWN) plain.add(origin);
  };
  return async (url, init) => {
    const origin = url.startsWith("https:") ? undefined : new URL(url).origin;
    const mayBeTls = origin !== undefined && !plain.has(origin);
    let response: Response;
    try {
      response = await send(url, init);
    } catch (error) {
      const code = systemCode(error);
      if (origin === undefined && code === "EPROTO") {
        const found = await spokenInsteadOfTls(url);
        throw found === undefined ? error : wrongProtocol(found, error);
      }
      if (mayBeTls && code === "ECONNRESET" && (await isTls(url, origin)))
        throw wrongProtocol("NIXCACHE_TLS", error);
      throw error;
    }
    if (!mayBeTls) return response;
    // Most servers of TLS tell a plain client so, each in its own words.
    if (response.status === 400 && (await isTls(url, origin))) {
      await response.body?.cancel();
      throw wrongProtocol("NIXCACHE_TLS");
    }
    remember(origin);
    return response;
  };
}

function wrongProtocol(code: WrongProtocol, cause?: unknown): Error {
  return Object.assign(new Error(code, { cause }), { code });
}

async function spokenInsteadOfTls(url: string): Promise<WrongProtocol | undefined> {
  if ((await handshake(url, "h2")) === "tls" && (await handshake(url, "http/1.1")) !== "tls")
    return "NIXCACHE_HTTP2";
  return (await handshake(url)) === "plain" ? "NIXCACHE_PLAIN_HTTP" : undefined;
}

/** What a server answers to the beginning of a TLS connection. Nothing is sent over it. */
function handshake(url: string, protocol?: "h2" | "http/1.1"): Promise<"tls" | "plain" | "neither"> {
  const { hostname, port, protocol: scheme } = new URL(url);
  const host = hostname.replace(/^\[|\]$/g, "");
  return new Promise((resolve) => {
    const socket = connect({
      host,
      port: Number(port || (scheme === "https:" ? 443 : 80)),
      // Who it is does not matter: it is told nothing.
      rejectUnauthorized: false,
      ...(protocol === undefined ? {} : { ALPNProtocols: [protocol] }),
    });
    const end = (found: "tls" | "plain" | "neither") => {
      resolve(found);
      socket.destroy();
    };
    socket.setTimeout(HANDSHAKE_MS, () => end("neither"));
    socket.once("secureConnect", () => end("tls"));
    socket.on("error", (error) =>
      end(systemCode(error) === "ERR_SSL_WRONG_VERSION_NUMBER" ? "plain" : "neither"),
    );
    socket.once("close", () => end("neither"));
  });
}

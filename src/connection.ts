/**
 * Connections that cannot be had, however often they are tried: the other side is not who it should be, or speaks
 * something else. The codes are those of OpenSSL, of Bun's fetch, and our own for what fetch does not tell apart.
 * https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/
 */
import { messageOf, systemCode } from "./errors.ts";

export interface ConnectionProblem {
  /** The end of a sentence that begins with what was asked for. */
  readonly reason: string;
  readonly hint: string;
}

/** A server of plain HTTP behind an https:// URL, one of TLS behind http://, one that speaks HTTP/2 alone. */
export type WrongProtocol = "NIXCACHE_PLAIN_HTTP" | "NIXCACHE_TLS" | "NIXCACHE_HTTP2";

const NAME_AUTHORITY =
  "If the server is the right one, add the certificate of its authority to the file that NIX_SSL_CERT_FILE names, or set it to a file with that certificate.";
const RENEW = "Renew the certificate on the server; if it is valid, set the clock of this machine.";

const PROBLEMS: Readonly<Record<string, ConnectionProblem>> = {
  DEPTH_ZERO_SELF_SIGNED_CERT: {
    reason: "the server has signed its certificate itself, and nobody trusts it here",
    hint: "If the server is the right one, add its certificate to the file that NIX_SSL_CERT_FILE names, or set it to a file with that certificate.",
  },
  CERT_HAS_EXPIRED: { reason: "the certificate of the server has expired", hint: RENEW },
  CERT_NOT_YET_VALID: { reason: "the certificate of the server is not valid yet", hint: RENEW },
  CERT_REVOKED: {
    reason: "the certificate of the server was revoked",
    hint: "Give the server another certificate.",
  },
  ERR_TLS_CERT_ALTNAME_INVALID: {
    reason: "the certificate of the server is for another host",
    hint: "Write the name that the certificate has, or give the server one for this name.",
  },
  NIXCACHE_PLAIN_HTTP: {
    reason: "the server speaks no TLS on this port",
    hint: "Check the port; where it is one of plain HTTP, and others may read what is sent, write http:// before the host.",
  },
  NIXCACHE_TLS: {
    reason: "the server speaks TLS on this port, not plain HTTP",
    hint: "Write https:// before the host.",
  },
  NIXCACHE_HTTP2: {
    reason: "the server speaks HTTP/2 alone",
    hint: "Let the server, or the proxy before it, speak HTTP/1.1 as well.",
  },
  EPROTO: {
    reason: "the TLS handshake failed",
    hint: "Check the port. The server may ask for a certificate of the client, or know no TLS newer than 1.1.",
  },
  Malformed_HTTP_Response: {
    reason: "the server speaks something else than HTTP/1.1",
    hint: "Check the port of the address.",
  },
};

/** Nobody who is trusted has signed it, or not so that it can be proved. */
const UNTRUSTED =
  /^(UNABLE_TO_[A-Z_]+|SELF_SIGNED_CERT_IN_CHAIN|CERT_(UNTRUSTED|REJECTED|SIGNATURE_FAILURE|CHAIN_TOO_LONG)|INVALID_(CA|PURPOSE)|PATH_LENGTH_EXCEEDED)$/;

/** Undefined where another try may bring more. It may be the cause of an error that says by which way it came. */
export function connectionProblem(error: unknown): ConnectionProblem | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const code = systemCode(cause) ?? "";
    if (UNTRUSTED.test(code)) {
      const reason = `no authority that is trusted here has signed the certificate of the server (${messageOf(cause)})`;
      return { reason, hint: NAME_AUTHORITY };
    }
    if (Object.hasOwn(PROBLEMS, code)) return PROBLEMS[code];
  }
  return undefined;
}

/** Codes of what did not get past a proxy, which says so itself. */
export const PROXY_CODE = /^Proxy/;

/** Why there is no answer, as the end of a sentence that begins with what was asked for. */
export function connectionReason(error: unknown): string {
  const problem = connectionProblem(error);
  if (problem !== undefined) return problem.reason;
  const cause = systemCause(error);
  const code = systemCode(cause) ?? "";
  if (PROXY_CODE.test(code)) return messageOf(cause);
  if (/REFUSED/i.test(code)) return "nobody listens there (connection refused)";
  if (code === "ENOTFOUND") return "the host has no address (DNS)";
  if (code === "ECONNRESET") return "the connection was closed before the answer was complete";
  return messageOf(cause);
}

/** What lies behind an error: the first of its causes that has a code, else the last of them. */
export function systemCause(error: unknown): unknown {
  let cause = error;
  while (cause instanceof Error && systemCode(cause) === undefined && cause.cause !== undefined)
    cause = cause.cause;
  return cause;
}

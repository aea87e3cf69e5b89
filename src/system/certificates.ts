/**
 * Whom TLS trusts. Nix reads its certificate authorities from the file that NIX_SSL_CERT_FILE names, in the place of
 * all others, and so do we; Bun's fetch knows SSL_CERT_FILE and NODE_EXTRA_CA_CERTS alone, and only from the start of
 * the process.
 * https://nix.dev/manual/nix/latest/command-ref/conf-file#conf-ssl-cert-file
 */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { messageOf, NixcacheError } from "../errors.ts";

export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** PEM, as bundles have it: text may stand between the certificates. */
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** @throws `filesystem` when the file cannot be read, or holds no certificate: nothing would be trusted then. */
export function readAuthorities(file: string): string {
  const hint = "Name a file of PEM certificates, such as /etc/ssl/certs/ca-certificates.crt, or unset it.";
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw new NixcacheError("filesystem", `NIX_SSL_CERT_FILE: cannot read ${file}: ${messageOf(cause)}`, {
      hint,
      cause,
    });
  }
  const certificates = text.match(CERTIFICATE) ?? [];
  if (certificates.some(isCertificate)) return text;
  throw new NixcacheError(
    "filesystem",
    `NIX_SSL_CERT_FILE: got ${file} with no certificate in it, expected certificate authorities`,
    { hint },
  );
}

/**
 * `send`, trusting these authorities and no others; without any, those that Bun trusts.
 * @param authorities called for each request: a file that cannot be read must hurt only those who need it
 */
export function trusting(authorities: (() => string) | undefined, send: Fetch): Fetch {
  if (authorities === undefined) return send;
  return async (url, init) => {
    if (!url.startsWith("https:")) return send(url, init);
    const tls: BunFetchRequestInit = { tls: { ca: authorities() } };
    return send(url, { ...init, ...tls });
  };
}

function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).raw.length > 0;
  } catch {
    return false;
  }
}

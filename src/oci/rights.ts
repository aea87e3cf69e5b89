/** What a registry lets us do in one repository, asked once each, and what its clock says. */
import { NixcacheError } from "../errors.ts";
import type { Credentials } from "./credentials.ts";
import { describeExchange, resolveLocation } from "./hop.ts";
import { type Network, systemNetwork } from "./network.ts";
import type { RegistryReference } from "./reference.ts";
import type { RegistryOptions } from "./registry.ts";
import { networkFailure, PATIENT, type RetryPolicy } from "./retry.ts";
import { createTransport, type Transport, unexpected } from "./transport.ts";

/** A person waits, and wants to know what is wrong now. */
const policy = (own: RetryPolicy | undefined): RetryPolicy => ({ ...(own ?? PATIENT), attempts: 1 });

export interface Registry {
  /** By how much its clock is ahead of ours, in ms; undefined where it does not say. */
  clockAheadMs(): Promise<number | undefined>;
  /** False for a repository that does not exist yet. @throws `denied`, `unreachable`, `protocol` */
  canPull(): Promise<boolean>;
  /** Undefined without credentials, by which nobody may write. @throws `denied`, `unreachable`, `protocol` */
  canPush(): Promise<boolean | undefined>;
}

export function askRegistry(
  reference: RegistryReference,
  options: RegistryOptions & { readonly credentials: () => Promise<Credentials | undefined> },
): Registry {
  const network = options.network ?? systemNetwork(options.host, options.signal);
  const transport = createTransport({
    ...{ reference, network, access: "read", policy: policy(options.policy) },
    credentials: options.credentials,
    userAgent: options.userAgent ?? "nixcache",
  });
  const at = (path: string): URL => new URL(`/v2/${path}`, transport.origin);
  return {
    clockAheadMs: () => readClock(at(""), network),
    async canPull() {
      const exchange = {
        method: "GET",
        url: at(`${reference.repository}/tags/list?n=1`),
        access: "pull",
      } as const;
      const answer = await transport.call(exchange);
      answer.close();
      if (answer.kind === "ok" || answer.kind === "absent") return answer.kind === "ok";
      throw unexpected(describeExchange(exchange), answer);
    },
    async canPush() {
      if ((await options.credentials()) === undefined) return undefined;
      await tryUpload(transport, at(`${reference.repository}/blobs/uploads/`));
      return true;
    },
  };
}

/**
 * Begins an upload and cancels it: an answer of 202 proves the right to write.
 * https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#post-then-put
 */
async function tryUpload(transport: Transport, url: URL): Promise<void> {
  const post = { method: "POST", url, access: "push", headers: { "content-length": "0" } } as const;
  const started = await transport.call(post);
  started.close();
  const location = started.headers.get("location");
  if (started.kind !== "ok" || location === null) throw unexpected(describeExchange(post), started);
  const session = resolveLocation(started.url, location, describeExchange(post));
  const cancel = { method: "DELETE", url: session, access: "push", accept: [404, 405] } as const;
  try {
    (await transport.call(cancel)).close();
  } catch (error) {
    // A session that nothing is sent to ends by itself.
    if (!(error instanceof NixcacheError) || error.code === "interrupted") throw error;
  }
}

/** Any answer has the time in it, also a refusal. */
async function readClock(url: URL, network: Network): Promise<number | undefined> {
  const sent = network.now();
  let response: Response;
  try {
    const init = { redirect: "manual", ...(network.signal && { signal: network.signal }) } as const;
    response = await network.fetch(url.href, init);
    await response.body?.cancel();
  } catch (error) {
    throw networkFailure(`GET ${url.host}${url.pathname}`, error).failure;
  }
  const date = Date.parse(response.headers.get("date") ?? "");
  // The header has whole seconds, cut off.
  return Number.isNaN(date) ? undefined : date + 500 - (sent + network.now()) / 2;
}

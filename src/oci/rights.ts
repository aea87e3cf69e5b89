/** What a registry lets us do in one repository, asked once each, and what its clock says. */
import { outward } from "../network/egress.ts";
import type { Credentials } from "./credentials.ts";
import { describeExchange } from "./hop.ts";
import { type Network, systemNetwork } from "./network.ts";
import type { RegistryReference } from "./reference.ts";
import type { RegistryOptions } from "./registry.ts";
import { clockAheadMs } from "./registry-clock.ts";
import { networkFailure, PATIENT, type RetryPolicy } from "./retry.ts";
import { createTransport, unexpected } from "./transport.ts";
import { tryUpload } from "./try-upload.ts";

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
      await tryUpload(transport, reference, at(`${reference.repository}/blobs/uploads/`));
      return true;
    },
  };
}

/** Any answer has the time in it, also a refusal. */
async function readClock(url: URL, network: Network): Promise<number | undefined> {
  const sent = network.now();
  let response: Response;
  try {
    const init = { ...(network.signal && { signal: network.signal }) };
    response = await outward(network, url)(url.href, init);
    await response.body?.cancel();
  } catch (error) {
    throw networkFailure(`GET ${url.host}${url.pathname}`, error).failure;
  }
  return clockAheadMs(response.headers, (sent + network.now()) / 2);
}

/**
 * The store over HTTP: one repository of an OCI registry.
 * https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md
 */
import type { Host } from "../host.ts";
import type { Credentials } from "./credentials.ts";
import type { Digest } from "./digest.ts";
import { mountBlob } from "./mount.ts";
import { type Network, systemNetwork } from "./network.ts";
import { formatReference, type RegistryReference } from "./reference.ts";
import { registryBlobs } from "./registry-blobs.ts";
import type { RegistryContext } from "./registry-context.ts";
import { registryManifests } from "./registry-manifests.ts";
import { registryTags } from "./registry-tags.ts";
import { PATIENT, type RetryPolicy } from "./retry.ts";
import type { CallOptions, Store } from "./store.ts";
import { createTransport } from "./transport.ts";
import { tryUpload } from "./try-upload.ts";

export interface RegistryOptions {
  /** Asked once, when the registry first wants something; see `findCredentials`. Default: none. */
  readonly credentials?: (() => Promise<Credentials | undefined>) | undefined;
  /** Default: `PATIENT`. */
  readonly policy?: RetryPolicy | undefined;
  /** The clock, chance and waiting. */
  readonly host: Host;
  /** Ends everything, such as on SIGINT. */
  readonly signal?: AbortSignal | undefined;
  /** Default: the real one, made of `host` and `signal`. */
  readonly network?: Network | undefined;
  /** Default: `nixcache`. */
  readonly userAgent?: string | undefined;
  /**
   * `write` for whoever will publish: push rights are asked for at once, also for reading. GHCR refuses a pull
   * token for a package that does not exist yet. Default: `read`.
   */
  readonly access?: "read" | "write" | undefined;
  /** Another repository of the same registry, of which blobs may be mounted. Default: none. */
  readonly mountFrom?: string | undefined;
  /** Whether this registry was seen to answer a range with the whole blob. Default: it was not. */
  readonly ignoresRange?: boolean | undefined;
}

export function openRegistry(reference: RegistryReference, options: RegistryOptions): Store {
  const { mountFrom } = options;
  const policy = options.policy ?? PATIENT;
  const network = options.network ?? systemNetwork(options.host, options.signal);
  const transport = createTransport({
    reference,
    policy,
    network,
    credentials: options.credentials ?? (async () => undefined),
    userAgent: options.userAgent ?? "nixcache",
    access: options.access ?? "read",
    mountFrom,
  });
  const at = (path: string): URL => new URL(`/v2/${reference.repository}/${path}`, transport.origin);
  const context: RegistryContext = {
    ...{ reference, transport, policy, network, at },
    ignoresRange: options.ignoresRange ?? false,
  };
  const blobs = registryBlobs(context);
  return {
    name: formatReference(reference),
    strictness: "unknown",
    ...blobs,
    clockAheadMs: () => transport.clockAheadMs(),
    checkWrite: ({ signal } = {}) => tryUpload(transport, reference, at("blobs/uploads/"), signal),
    ...(mountFrom !== undefined && {
      mountBlob: (digest: Digest, call?: CallOptions) => mountBlob(context, mountFrom, digest, call),
    }),
    ...registryManifests(context, blobs.statBlob),
    ...registryTags(context),
  };
}

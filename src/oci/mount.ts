/**
 * Cross-repository mounts: a registry that has a blob in one repository gives it to another, and nothing is sent.
 * https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#mounting-a-blob-from-another-repository
 */
import { NixcacheError } from "../errors.ts";
import type { Digest } from "./digest.ts";
import { throwIfAborted } from "./network.ts";
import type { RegistryContext } from "./registry-context.ts";
import type { CallOptions } from "./store.ts";

/** There is another way, so nobody waits long for this one. */
const MOUNT_TRIES = 2;

/** Whether the registry has done it. Whatever else it says, the blob can be uploaded. @throws when aborted */
export async function mountBlob(
  { transport, network, at }: RegistryContext,
  from: string,
  digest: Digest,
  { signal }: CallOptions = {},
): Promise<boolean> {
  const url = at("blobs/uploads/");
  url.search = new URLSearchParams({ mount: digest, from }).toString();
  const headers = { "content-length": "0" };
  const exchange = {
    method: "POST",
    url,
    access: "mount",
    headers,
    attempts: MOUNT_TRIES,
    signal,
  } as const;
  try {
    const answer = await transport.call(exchange);
    answer.close();
    // 202 is a session for an upload, which nobody uses: registries forget those.
    return answer.kind === "ok" && answer.status === 201;
  } catch (error) {
    throwIfAborted(signal, network.signal);
    if (error instanceof NixcacheError) return false;
    throw error;
  }
}

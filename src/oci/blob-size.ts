/** How large a blob is, or whether it is there at all: by HEAD, else by the head of what a GET answers. */
import { type Digest, isDigest } from "./digest.ts";
import { describeExchange, type Exchange } from "./hop.ts";
import { FEW_ATTEMPTS, orOtherWay } from "./other-way.ts";
import type { RegistryContext } from "./registry-context.ts";
import type { CallOptions } from "./store.ts";
import { type Answer, isPage, lengthOf, unexpected } from "./transport.ts";

/** Undefined when it is absent. */
export async function blobSize(
  { transport, network, at }: RegistryContext,
  digest: Digest,
  { signal }: CallOptions,
): Promise<number | undefined> {
  const url = at(`blobs/${digest}`);
  const head: Exchange = { method: "HEAD", url, access: "pull", faultAttempts: FEW_ATTEMPTS, signal };
  const get: Exchange = { method: "GET", url, access: "pull", signal };
  // A redirect, an answer without a length, or a 403 that has no body to say whether it is a rate limit.
  const ranged = { ...get, headers: { range: "bytes=0-0" }, accept: [416], faultAttempts: FEW_ATTEMPTS };
  for (const exchange of [head, ranged]) {
    const answer = await orOtherWay(() => transport.call(exchange), signal, network.signal);
    answer?.close();
    if (answer?.kind === "absent") return undefined;
    const size = answer && sizeIn(answer);
    const stated = answer?.headers.get("docker-content-digest");
    // Who answers every HEAD with 200 says 0, or nothing of this blob.
    const isOther = size === 0 || (isDigest(stated) && stated !== digest);
    if (size !== undefined && (exchange === ranged || !isOther)) return size;
  }
  const answer = await transport.call(get);
  answer.close();
  if (answer.kind === "absent") return undefined;
  const size = sizeIn(answer);
  if (size !== undefined) return size;
  throw unexpected(describeExchange(get), answer, "The registry does not say how large its blobs are.");
}

function sizeIn(answer: Answer): number | undefined {
  if (isPage(answer)) return undefined;
  if (answer.status === 200) return lengthOf(answer);
  // An empty blob has no first byte: `bytes */0`.
  const total = /^bytes (?:0-0|\*)\/([0-9]{1,15})$/i.exec(
    answer.headers.get("content-range")?.trim() ?? "",
  )?.[1];
  return total !== undefined && (answer.status === 206 || answer.status === 416) ? Number(total) : undefined;
}

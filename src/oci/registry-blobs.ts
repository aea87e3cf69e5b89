/**
 * Blobs of a registry repository: reading, whole or in ranges, through redirects to storage hosts.
 * https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-blobs
 */
import { NixcacheError } from "../errors.ts";
import type { Digest } from "./digest.ts";
import { download, type Opened } from "./download.ts";
import { describeExchange, type Exchange } from "./hop.ts";
import { throwIfAborted } from "./network.ts";
import type { RegistryContext } from "./registry-context.ts";
import { withAttempts, withRetry } from "./retry.ts";
import { StorageLinks } from "./storage-links.ts";
import { type CallOptions, checkRange, type Store } from "./store.ts";
import { type Answer, lengthOf, unexpected } from "./transport.ts";
import { uploadBlob } from "./upload.ts";

export function registryBlobs(context: RegistryContext): Pick<Store, "statBlob" | "readBlob" | "writeBlob"> {
  const { transport, network, at } = context;
  const links = new StorageLinks(transport.origin);

  const statBlob = async (digest: Digest, { signal }: CallOptions = {}): Promise<number | undefined> => {
    const url = at(`blobs/${digest}`);
    const answer = await transport.call({ method: "HEAD", url, access: "pull", accept: [403], signal });
    answer.close();
    if (answer.kind === "absent") return undefined;
    const size = answer.status === 200 ? lengthOf(answer) : undefined;
    if (size !== undefined) return size;
    // A redirect, no length, or a 403 that has no body to say whether it is a rate limit: ask for one byte.
    const exchange = {
      method: "GET",
      url,
      access: "pull",
      headers: { range: "bytes=0-0" },
      accept: [416],
      signal,
    } as const;
    const probe = await transport.call(exchange);
    probe.close();
    if (probe.kind === "absent") return undefined;
    const total = probe.status === 200 ? lengthOf(probe) : contentRange(probe)?.total;
    if (total === undefined)
      throw unexpected(
        describeExchange(exchange),
        probe,
        "The registry does not say how large its blobs are.",
      );
    return total;
  };

  const readBlob: Store["readBlob"] = async (digest, { range, signal, attempts } = {}) => {
    checkRange(range);
    const policy = withAttempts(context.policy, attempts);
    const url = at(`blobs/${digest}`);
    const what = describeExchange({ method: "GET", url });
    const start = range?.offset ?? 0;

    /** Asks for all from byte `done` of the stream on. */
    const ask = async (
      done: number,
      end: number | undefined,
    ): Promise<(Opened & { total: number | undefined }) | undefined> => {
      const from = start + done;
      const ranged = from > 0 || range !== undefined;
      const exchange: Exchange = {
        method: "GET",
        url,
        access: "pull",
        signal,
        accept: [416],
        ...(ranged ? { headers: { range: `bytes=${from}-${end === undefined ? "" : end - 1}` } } : {}),
      };
      const answer = (await askLink(digest, exchange)) ?? (await transport.send(exchange));
      if (answer.kind === "absent") return undefined;
      links.remember(digest, answer.url);
      const { body, close } = answer;
      if (answer.status === 200) {
        const total = lengthOf(answer);
        return { body, close, total, skip: from, exact: end === undefined || end === total };
      }
      const got = answer.status === 206 ? contentRange(answer) : undefined;
      if (ranged && got !== undefined && got.first === from) {
        return { body, close, total: got.total, skip: 0, exact: true };
      }
      close();
      if (answer.status === 416) {
        throw new NixcacheError(
          "corrupt",
          `${what}: bytes ${from} to ${end ?? "the end"} are outside of the blob`,
        );
      }
      throw unexpected(what, answer, `Asked for the bytes from ${from} on.`);
    };

    const end = range === undefined ? undefined : range.offset + range.length;
    if (range?.length === 0)
      return (await statBlob(digest, { signal })) === undefined ? undefined : emptyStream();
    const first = await withRetry(policy, network, () => ask(0, end), signal);
    if (first === undefined) return undefined;
    try {
      const total = first.total ?? (await statBlob(digest, { signal }));
      if (total === undefined) throw new NixcacheError("protocol", `${what}: it is there and absent at once`);
      if (end !== undefined && end > total) {
        throw new NixcacheError(
          "corrupt",
          `${what}: bytes ${start} to ${end} are outside of a blob of ${total} bytes`,
        );
      }
      const stop = end ?? total;
      const exact = first.exact || stop === total;
      const reopen = (done: number) => {
        // What broke may have broken because the link is over.
        links.forget(digest);
        return ask(done, stop);
      };
      return download({
        what,
        length: stop - start,
        first: { ...first, exact },
        reopen,
        policy,
        network,
        signal,
      });
    } catch (error) {
      first.close();
      throw error;
    }
  };

  /** The answer at the link; undefined where there is none that is good. Whether the blob is there is not its to say. */
  const askLink = async (digest: Digest, exchange: Exchange): Promise<Answer | undefined> => {
    const url = links.get(digest);
    if (url === undefined) return undefined;
    try {
      const answer = await transport.send({ ...exchange, url });
      if (answer.status === 200 || answer.status === 206) return answer;
      answer.close();
    } catch {
      throwIfAborted(exchange.signal, network.signal);
    }
    links.forget(digest);
    return undefined;
  };

  return { statBlob, readBlob, writeBlob: (source, call = {}) => uploadBlob(context, source, call) };
}

/** `bytes 0-0/1234`. The total is undefined where the server wrote `*`. RFC 9110, 14.4 */
export function contentRange({
  headers,
}: Pick<Answer, "headers">): { first: number; last: number; total: number | undefined } | undefined {
  const match = /^bytes ([0-9]{1,15})-([0-9]{1,15})\/([0-9]{1,15}|\*)$/i.exec(
    headers.get("content-range")?.trim() ?? "",
  );
  if (match === null) return undefined;
  const [, first, last, total] = match;
  return { first: Number(first), last: Number(last), total: total === "*" ? undefined : Number(total) };
}

function emptyStream(): ReadableStream<Uint8Array> {
  return new ReadableStream({ start: (controller) => controller.close() });
}

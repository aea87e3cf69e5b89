/**
 * Blobs of a registry repository: reading, whole or in ranges, through redirects to storage hosts.
 * https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-blobs
 */
import { NixcacheError } from "../errors.ts";
import { BlobRequests } from "./blob-requests.ts";
import { blobSize } from "./blob-size.ts";
import { download } from "./download.ts";
import { describeExchange } from "./hop.ts";
import type { RegistryContext } from "./registry-context.ts";
import { withAttempts } from "./retry.ts";
import { checkRange, type Store } from "./store.ts";
import { uploadBlob } from "./upload.ts";

type Blobs = Pick<Store, "statBlob" | "readBlob" | "writeBlob"> & Required<Pick<Store, "ignoresRange">>;

export function registryBlobs(context: RegistryContext): Blobs {
  const { network, at } = context;
  const requests = new BlobRequests(context);

  const statBlob: Store["statBlob"] = (digest, call = {}) => blobSize(context, digest, call);

  const readBlob: Store["readBlob"] = async (digest, { range, signal, attempts } = {}) => {
    checkRange(range);
    const policy = withAttempts(context.policy, attempts);
    const what = describeExchange({ method: "GET", url: at(`blobs/${digest}`) });
    const start = range?.offset ?? 0;
    const end = range === undefined ? undefined : range.offset + range.length;
    if (range?.length === 0)
      return (await statBlob(digest, { signal })) === undefined ? undefined : emptyStream();
    const first = await requests.patiently(policy, digest, start, end, signal);
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
      return download({
        what,
        length: stop - start,
        first: { ...first, exact },
        reopen: (done) => {
          requests.forgetLink(digest);
          const isWhole = range === undefined && done === 0;
          return requests.from(digest, start + done, isWhole ? undefined : stop, signal);
        },
        policy,
        network,
        signal,
      });
    } catch (error) {
      first.close();
      throw error;
    }
  };

  return {
    statBlob,
    readBlob,
    writeBlob: (source, call = {}) => uploadBlob(context, source, call),
    ignoresRange: () => requests.ignoresRange,
  };
}

function emptyStream(): ReadableStream<Uint8Array> {
  return new ReadableStream({ start: (controller) => controller.close() });
}

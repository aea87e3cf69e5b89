/** Fetching a whole blob into the spool, checked against its digest. */
import type { BlobReference } from "../cache/manifests.ts";
import { NixcacheError } from "../errors.ts";
import { discardBlob, type Spool } from "../oci/spool.ts";
import type { BlobSource, CallOptions, Store } from "../oci/store.ts";

/** How often a blob is fetched before its bytes count as wrong. */
export const FETCHES = 2;

/**
 * Undefined when the blob is absent.
 * @param what for messages, such as `index layer`
 * @throws `corrupt` when digest or size do not match, twice: bytes may be damaged on their way. The caller
 *   discards the blob.
 */
export async function fetchBlob(
  store: Store,
  spool: Spool,
  reference: BlobReference,
  what: string,
  options: CallOptions,
): Promise<BlobSource | undefined> {
  for (let fetches = 1; ; fetches++) {
    const blob = await fetchOnce(store, spool, reference, options);
    if (blob === undefined) return undefined;
    if (blob.digest === reference.digest && blob.size === reference.size) return blob;
    discardBlob(blob);
    if (fetches === FETCHES) throw damagedBlob(reference, what, store);
  }
}

export function damagedBlob(
  { digest, size }: BlobReference,
  what: string,
  { name }: Pick<Store, "name">,
): NixcacheError {
  return new NixcacheError(
    "corrupt",
    `${what} ${digest} of ${name}: what arrived is not ${size} bytes with that digest`,
    { hint: "Try again; when it stays, the registry or a proxy before it has damaged the blob." },
  );
}

/** Whatever the store has under the digest, up to the expected size. */
async function fetchOnce(
  store: Store,
  spool: Spool,
  { digest, size }: BlobReference,
  options: CallOptions,
): Promise<BlobSource | undefined> {
  const stream = await store.readBlob(digest, options);
  if (stream === undefined) return undefined;
  return spool.make(async (writer) => {
    for await (const chunk of stream) {
      if (writer.size + chunk.length > size) break;
      await writer.write(chunk);
    }
  });
}

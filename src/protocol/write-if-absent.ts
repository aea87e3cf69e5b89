/** Uploading a blob where it is not there yet. */
import type { BlobSource, CallOptions, Store } from "../oci/store.ts";

/** Answers whether it was sent. @throws what the store throws */
export async function writeIfAbsent(
  store: Pick<Store, "statBlob" | "writeBlob">,
  blob: BlobSource,
  options: CallOptions,
): Promise<boolean> {
  // Any size but its own is an answer to something else, such as a proxy's to every HEAD.
  if ((await store.statBlob(blob.digest, options)) === blob.size) return false;
  await store.writeBlob(blob, options);
  return true;
}

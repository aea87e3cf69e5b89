/** The empty config blob that every manifest of ours names, uploaded where it is not there yet. */
import { EMPTY_CONFIG, EMPTY_CONFIG_BYTES } from "../oci/manifest.ts";
import type { BlobSource, CallOptions, Store } from "../oci/store.ts";
import { writeIfAbsent } from "./write-if-absent.ts";

export const EMPTY_CONFIG_BLOB: BlobSource = {
  digest: EMPTY_CONFIG.digest,
  size: EMPTY_CONFIG.size,
  content: EMPTY_CONFIG_BYTES,
};

export async function writeEmptyConfig(store: Store, options: CallOptions): Promise<void> {
  await writeIfAbsent(store, EMPTY_CONFIG_BLOB, options);
}

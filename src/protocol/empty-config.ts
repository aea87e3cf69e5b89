/** The empty config blob that every manifest of ours names, uploaded where it is not there yet. */
import { EMPTY_CONFIG, EMPTY_CONFIG_BYTES } from "../oci/manifest.ts";
import type { CallOptions, Store } from "../oci/store.ts";

export async function writeEmptyConfig(store: Store, options: CallOptions): Promise<void> {
  if ((await store.statBlob(EMPTY_CONFIG.digest, options)) !== undefined) return;
  await store.writeBlob(
    { digest: EMPTY_CONFIG.digest, size: EMPTY_CONFIG.size, content: EMPTY_CONFIG_BYTES },
    options,
  );
}

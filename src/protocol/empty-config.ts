/** The empty config blob that every manifest of ours names, uploaded where it is not there yet. */
import { EMPTY_CONFIG, EMPTY_CONFIG_BYTES } from "../oci/manifest.ts";
import type { CallOptions, Store } from "../oci/store.ts";
import { writeIfAbsent } from "./write-if-absent.ts";

export async function writeEmptyConfig(store: Store, options: CallOptions): Promise<void> {
  const { digest, size } = EMPTY_CONFIG;
  await writeIfAbsent(store, { digest, size, content: EMPTY_CONFIG_BYTES }, options);
}

/** Opens the store that a cache reference names. */
import { openLayout } from "./layout.ts";
import type { CacheReference } from "./reference.ts";
import { openRegistry, type RegistryOptions } from "./registry.ts";
import type { Store } from "./store.ts";

export function openStore(reference: CacheReference, options: RegistryOptions): Store {
  if (reference.kind === "registry") return openRegistry(reference, options);
  return openLayout(reference.path, options);
}

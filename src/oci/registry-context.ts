/** What the parts of the registry store share. */
import type { Network } from "./network.ts";
import type { RegistryReference } from "./reference.ts";
import type { RetryPolicy } from "./retry.ts";
import type { Transport } from "./transport.ts";

export interface RegistryContext {
  readonly reference: RegistryReference;
  readonly transport: Transport;
  readonly policy: RetryPolicy;
  readonly network: Network;
  /** The address of a path below `/v2/NAME/`. */
  readonly at: (path: string) => URL;
  /** Whether the registry was seen to answer a range with the whole blob. */
  readonly ignoresRange: boolean;
}

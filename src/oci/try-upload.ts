/** Whether anything may be uploaded: what is found out before hours of work. */

import { NixcacheError } from "../errors.ts";
import { resolveLocation } from "../network/egress.ts";
import { NO_PLACE_HINT, NO_UPLOADS, readOnlyError } from "./denied.ts";
import { describeExchange, type Exchange } from "./hop.ts";
import type { RegistryReference } from "./reference.ts";
import { type Transport, unexpected } from "./transport.ts";

/** As often as this before it counts as not known. */
const TRIES = 2;

/**
 * Begins an upload and cancels it: an answer of 202 proves the right to write, and asks for no other than pushing does.
 * https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#post-then-put
 * @throws `denied` when nothing can be written; `unreachable`, `protocol` when that is not known
 */
export async function tryUpload(
  transport: Transport,
  reference: RegistryReference,
  url: URL,
  signal?: AbortSignal,
): Promise<void> {
  const common = { access: "push", attempts: TRIES, ...(signal && { signal }) } as const;
  const headers = { "content-length": "0" };
  const post: Exchange = { ...common, method: "POST", url, headers, accept: NO_UPLOADS };
  const started = await transport.call(post);
  started.close();
  if (NO_UPLOADS.includes(started.status)) throw readOnlyError(reference, started.status);
  if (started.kind === "absent")
    throw new NixcacheError("denied", unexpected(describeExchange(post), started).message, {
      hint: NO_PLACE_HINT,
    });
  const location = started.headers.get("location");
  if (started.kind !== "ok" || location === null) throw unexpected(describeExchange(post), started);
  const session = resolveLocation(started.url, location, describeExchange(post));
  const cancel: Exchange = { ...common, method: "DELETE", url: session, accept: [404, 405] };
  try {
    (await transport.call(cancel)).close();
  } catch (error) {
    // A session that nothing is sent to ends by itself.
    if (!(error instanceof NixcacheError) || error.code === "interrupted") throw error;
  }
}

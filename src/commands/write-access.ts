/** Whether a cache can be written to: asked before hours of work, so that they are not lost. */
import { readOnlyRun } from "../actions/event.ts";
import { runEvent } from "../config.ts";
import { type Context, openSource } from "../context.ts";
import { type ErrorCode, NixcacheError } from "../errors.ts";
import type { CacheReference } from "../oci/reference.ts";
import type { Store } from "../oci/store.ts";
import type { Arguments } from "./command.ts";

export const READ_ONLY_ARGS = {
  "read-only-ok": {
    type: "boolean",
    description: "Where the cache cannot be written to, build all the same, publish nothing, and end well",
  },
} as const;

/** By which a store says that nothing can be written. All else may pass. */
const REFUSED: ReadonlySet<ErrorCode> = new Set(["denied", "filesystem", "layout"]);

/** Why nothing can be written; undefined where something can, or that is not known: then it shows when it is tried. */
export async function whyReadOnly(
  store: Store,
  { signal, log }: Pick<Context, "signal" | "log">,
): Promise<NixcacheError | undefined> {
  try {
    await store.checkWrite?.({ signal });
    return undefined;
  } catch (error) {
    if (!(error instanceof NixcacheError) || signal.aborted) throw error;
    if (REFUSED.has(error.code)) return error;
    log.warn(`whether ${store.name} can be written to is not known: ${error.message}; going on`);
    return undefined;
  }
}

/** @throws what the store refuses to be written to with */
export async function requireWrite(reference: CacheReference, context: Context): Promise<void> {
  const refused = await whyReadOnly(openSource(reference, context), context);
  if (refused !== undefined) throw refused;
}

/**
 * Asks before a publish builds. Why one that may not write is to go on without publishing; undefined where it may write. Expected is that by
 * `--read-only-ok`, and in runs of GitHub Actions whose token may only read.
 * @throws what the store refuses to be written to with, where nobody expects it
 */
export async function readOnlyReason(
  given: Arguments,
  reference: CacheReference,
  context: Context,
): Promise<string | undefined> {
  const refused = await whyReadOnly(openSource(reference, context), context);
  if (refused === undefined) return undefined;
  const run = runEvent(context.env);
  const why = given.flag("read-only-ok") ? "--read-only-ok" : run && readOnlyRun(run);
  if (why !== undefined) {
    context.log.warn(`${refused.message} (${why}): nothing is published`);
    return `${refused.message} (${why})`;
  }
  throw new NixcacheError(refused.code, `${refused.message}; nothing was built`, {
    hint: `${refused.hint ?? ""} With --read-only-ok publish builds all the same, and publishes nothing.`.trim(),
    cause: refused,
  });
}

/** Whether it is expected that the cache cannot be written to. */
export function expectsReadOnly(given: Arguments, { env }: Pick<Context, "env">): boolean {
  const run = runEvent(env);
  return given.flag("read-only-ok") || (run !== undefined && readOnlyRun(run) !== undefined);
}

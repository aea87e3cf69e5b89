/** Taking turns at the local index with other processes. */
import type { IndexUpdate } from "../cache/index-update.ts";
import { NixcacheError } from "../errors.ts";
import type { ProtocolContext } from "./context.ts";

/** Between two tries, in milliseconds. */
const TRY_EVERY_MS = 50;

/** After this long a person should know what is waited for. */
const WARN_AFTER_MS = 2_000;

/** Longer than any refresh takes that makes progress; the other process hangs. */
const GIVE_UP_AFTER_MS = 15 * 60_000;

/** @throws `filesystem` when another process does not let go of the index. */
export function updateIndex<T>(
  context: ProtocolContext,
  change: (update: IndexUpdate) => Promise<T>,
): Promise<T> {
  const { database, host, signal, warn } = context;
  let waited = 0;
  return database.update(change, async () => {
    await host.sleep(TRY_EVERY_MS, signal);
    waited += TRY_EVERY_MS;
    if (waited === WARN_AFTER_MS)
      warn(`waiting for another process that is writing the local index ${database.path}`);
    if (waited < GIVE_UP_AFTER_MS) return;
    throw new NixcacheError(
      "filesystem",
      `another process has been writing the local index ${database.path} for long`,
      {
        hint: "Find and end it, or set NIXCACHE_INDEX_DIR to a folder of its own.",
      },
    );
  });
}

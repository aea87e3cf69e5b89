/** Keeps Nix's garbage collector away from store paths for a while. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { NixcacheError } from "../errors.ts";
import { makeTemporaryFolder } from "../system/own-folder.ts";
import { errorIn } from "./error-text.ts";
import { runLines } from "./lines.ts";
import type { Environment } from "./location.ts";
import { inBatches } from "./spawn.ts";

export interface HoldOptions {
  readonly env: Environment;
  readonly storeRoot?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Where a folder for links can be made. */
  readonly temporary: string;
}

/**
 * Makes links that are roots for the collector, until it is disposed of. Whoever is killed leaves links in the
 * temporary folder; the roots end with these.
 *
 * @throws `nix-store` when Nix refuses, such as for a path that is gone already.
 */
export async function hold(paths: readonly string[], options: HoldOptions): Promise<AsyncDisposable> {
  const folder = makeTemporaryFolder(options.temporary, "nixcache-roots-");
  const release = () => rm(folder, { recursive: true, force: true });
  const store = options.storeRoot === undefined ? [] : ["--store", options.storeRoot];
  try {
    let links = 0;
    await inBatches(paths, async (batch) => {
      // Versions before 2.4 want --indirect for links elsewhere than in Nix's own folder.
      const root = ["--add-root", join(folder, `${++links}`), "--indirect"];
      const said: string[] = [];
      const argv = ["nix-store", "--realise", ...store, ...root, ...batch];
      const { exitCode } = await runLines(argv, { ...options, onLine: (line) => said.push(line) });
      options.signal?.throwIfAborted();
      if (exitCode !== 0) {
        const reason = errorIn(said.join("\n")) || `status ${exitCode}`;
        throw new NixcacheError(
          "nix-store",
          `cannot keep what was built from the garbage collector: ${reason}`,
        );
      }
    });
  } catch (error) {
    await release();
    throw error;
  }
  return { [Symbol.asyncDispose]: release };
}

/** Chooses how the news comes that an output is built. */
import { messageOf } from "../errors.ts";
import { type BuiltOptions, newestPathId } from "../nix/built.ts";
import { DatabaseUnreadable } from "../nix/database.ts";
import { configuredHook, hookScript } from "../nix/post-build-hook.ts";
import type { NixStore } from "../nix/store.ts";
import type { Queue } from "./queue.ts";
import { announced, outputsOf, type PathSource } from "./source.ts";

export interface Followed {
  readonly source: PathSource;
  /** For the Nix command that builds. */
  readonly extraArgs: readonly string[];
}

/** A sentence without its full stop: why nothing can be seen of the builds until they end. */
export type Blind = string;

export interface FollowOptions extends BuiltOptions {
  readonly store: NixStore;
  readonly queue: () => Queue;
}

/**
 * Nix's database where it can be read: that needs nobody's trust, slows no build down, and has what an earlier process
 * left. Where it cannot, a post-build hook; Nix's daemon ignores it from a user whom it does not trust. A daemon
 * whose database is not on this machine could not run our hook.
 *
 * @param drvPaths the derivations to be built
 */
export async function follow(drvPaths: readonly string[], options: FollowOptions): Promise<Followed | Blind> {
  try {
    newestPathId(options);
  } catch (error) {
    if (!(error instanceof DatabaseUnreadable)) throw error;
    if (error.missing) return `Nix's database is not on this machine: ${messageOf(error)}`;
    return await byHook(options);
  }
  const needed = await options.store.closure(drvPaths);
  const derivations = needed.map(({ path }) => path).filter((path) => path.endsWith(".drv"));
  return { source: outputsOf(new Set(derivations), options), extraArgs: [] };
}

async function byHook(options: FollowOptions): Promise<Followed | Blind> {
  const other = await configuredHook(options.env);
  if (other !== undefined) {
    return `Nix's database cannot be read, and the post-build hook ${other} is set already`;
  }
  const queue = options.queue();
  const hook = queue.writeHook(hookScript(queue.folder));
  return { source: announced(queue), extraArgs: ["--option", "post-build-hook", hook] };
}

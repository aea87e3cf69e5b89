/** A run that publishes while it builds: ours, by Nix, or a command of the person's. */
import { messageOf, NixcacheError } from "../errors.ts";
import { type Host, randomId } from "../host.ts";
import { DatabaseUnreadable } from "../nix/database.ts";
import type { Environment } from "../nix/location.ts";
import { RunMemory } from "../publish/memory.ts";
import type { Compressor } from "../publish/nar-file.ts";
import type { PublishContext, PublishResult } from "../publish/publish.ts";
import { runTheirCommand } from "./command.ts";
import { follow } from "./follow.ts";
import { type PathsContext, publishPaths } from "./publish-paths.ts";
import type { Queue } from "./queue.ts";
import { rememberFound } from "./remembered.ts";
import { builtFromNowOn, type CommandSource } from "./source.ts";
import type { Stopping } from "./stopping.ts";
import { publishWhile, type WatchOptions } from "./watch.ts";

export interface WatchRun extends PathsContext {
  /** As `shared` makes it: one for the rounds of the run and the final publish. */
  readonly publish: PublishContext;
  /** For the rounds: with few threads, since builds need the others. */
  readonly compressor: Compressor;
  /** Made when it is needed. */
  readonly queue: () => Queue;
  readonly stopping: Stopping;
  readonly host: Host;
  readonly log: WatchOptions["log"];
}

/** With one memory of what was found and uploaded, for all publishes of a run. */
export function shared(context: PublishContext): PublishContext {
  return { ...context, upstreams: context.upstreams.map(rememberFound), memory: new RunMemory() };
}

/**
 * Runs a build of ours and commits partial generations meanwhile. What they are replaced by is the caller's to publish,
 * with the same source, system and selection, the same `publish`, and `stopping.until`.
 *
 * @param job gets more arguments for the Nix command
 * @throws as `publishWhile`
 */
export async function watchBuild<T>(
  drvPaths: readonly string[],
  job: (extraArgs: readonly string[]) => Promise<T>,
  run: WatchRun,
): Promise<T> {
  const followed = await follow(drvPaths, { ...run.location, store: run.store, queue: run.queue });
  if (typeof followed === "string") {
    run.log.warn(`nothing is published before the build ends: ${followed}`);
    return job([]);
  }
  return publishWhile(() => job(followed.extraArgs), {
    ...run,
    source: followed.source,
    publish: rounds(run),
  });
}

export interface CommandEnd {
  /** The command's own. */
  readonly exitCode: number;
  /**
   * Of everything that was built meanwhile, and that an earlier run had seen and not published; undefined when that
   * failed as well as the command.
   */
  readonly result: PublishResult | undefined;
}

/**
 * Runs a command and publishes what is built in the store meanwhile, also when the command fails.
 *
 * @throws `usage` when it cannot be started; `nix-store`, before it is, when nothing can be seen of what it builds; as
 * `publishWhile`; as `publish` when the command did not fail
 */
export async function watchCommand(
  argv: readonly string[],
  env: Environment,
  given: WatchRun,
): Promise<CommandEnd> {
  const id = randomId(given.host);
  // Each run succeeds nothing but itself: two commands have nothing in common that we know of.
  const run: WatchRun = { ...given, origin: { ...given.origin, selection: `watch ${id}` } };
  const { signal, until } = run.stopping;
  const source = open(run, id);
  const exitCode = await publishWhile(() => runTheirCommand(argv, { env, signal }), {
    ...run,
    source,
    publish: rounds(run),
  });
  try {
    const result = await publishPaths(source.all(), run, { until });
    signal.throwIfAborted();
    source.done();
    return { exitCode, result };
  } catch (error) {
    if (signal.aborted || exitCode === 0) throw error;
    run.log.warn(`not published, the next run tries again: ${messageOf(error)}`);
    return { exitCode, result: undefined };
  }
}

function open(run: WatchRun, id: string): CommandSource {
  try {
    return builtFromNowOn(run.location, run.queue(), `run-${id}`);
  } catch (cause) {
    if (!(cause instanceof DatabaseUnreadable)) throw cause;
    throw new NixcacheError("nix-store", `cannot see what a command builds: ${cause.message}`, {
      hint: "Run the command without nixcache, and publish its results by their paths.",
      cause,
    });
  }
}

/** One blob in the making at a time. */
function rounds(run: WatchRun): WatchOptions["publish"] {
  const progress = { planned() {}, compressed() {}, stored() {} };
  const publish = { ...run.publish, unitsAtOnce: 1, compressor: run.compressor, progress };
  const origin = { ...run.origin, partial: true as const };
  return (paths, until) => publishPaths(paths, { ...run, origin, publish }, { until });
}

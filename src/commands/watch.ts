/** What `publish --watch` works with. */
import { queueDirectory } from "../config.ts";
import { type Context, openCache } from "../context.ts";
import { readOutputs } from "../nix/derivation.ts";
import type { NixStore } from "../nix/store.ts";
import type { CacheReference } from "../oci/reference.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { Compressor } from "../publish/nar-file.ts";
import type { PublishContext } from "../publish/publish.ts";
import { Queue } from "../watch/queue.ts";
import { shared, type WatchRun } from "../watch/run.ts";
import { stopping } from "../watch/stopping.ts";
import type { Trusted } from "./trust.ts";

export interface WatchSetup extends Pick<WatchRun, "store" | "origin"> {
  readonly store: NixStore;
  readonly storeRoot: string | undefined;
  readonly reference: CacheReference;
  /** zstd level. */
  readonly level: number;
  readonly trust: Trusted;
  readonly publish: (protocol: ProtocolContext) => PublishContext;
}

/** A cache that can still be written to for a while after the signal; dispose of it at the end. */
export function openWatch(setup: WatchSetup, context: Context): WatchRun & Disposable {
  const { storeRoot, reference, level, origin, store, trust } = setup;
  const { env, host, log } = context;
  context.stopsItself();
  const stop = stopping(context.signal, host);
  const cache = openCache(reference, "write", { ...context, signal: stop.cut }, { trust });
  return {
    ...{ store, origin, host, stopping: stop },
    location: { env, storeRoot },
    publish: shared(setup.publish(cache.protocol)),
    compressor: new Compressor(level, 1),
    queue: () =>
      new Queue(queueDirectory(reference, storeRoot, env), (drv) => readOutputs(store.realPath(drv), drv)),
    log: { info: (message) => log.info(message), warn: (message) => log.warn(message) },
    [Symbol.dispose]() {
      cache[Symbol.dispose]();
      stop[Symbol.dispose]();
    },
  };
}

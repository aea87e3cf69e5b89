/**
 * The network as an argument, beside the clock, chance and waiting of `Host`, so that tests wait for nothing
 * and talk to doubles. `systemNetwork` is the real one.
 */

import { NixcacheError } from "../errors.ts";
import type { Host } from "../host.ts";
import type { Web } from "../network/egress.ts";
import { DIRECT_WEB } from "../network/web.ts";

export interface Network extends Host, Web {
  /** Calls `fire` once after `ms` unless the returned function is called before. */
  readonly timer: (ms: number, fire: () => void) => () => void;
  /** Ends everything, such as on SIGINT. */
  readonly signal?: AbortSignal | undefined;
}

/** @param web default: without proxies, trusting whom Bun trusts */
export function systemNetwork(host: Host, signal?: AbortSignal, web: Web = DIRECT_WEB): Network {
  return {
    now: () => host.now(),
    random: () => host.random(),
    sleep: (ms, stop) => host.sleep(ms, stop),
    fetch: web.fetch,
    names: web.names,
    timer: (ms, fire) => {
      const id = setTimeout(fire, ms);
      return () => clearTimeout(id);
    },
    signal,
  };
}

/** @throws `interrupted` when one of the signals has fired. */
export function throwIfAborted(...signals: (AbortSignal | undefined)[]): void {
  for (const signal of signals) if (signal?.aborted) throw interrupted(signal);
}

export function interrupted(signal: AbortSignal): NixcacheError {
  if (signal.reason instanceof NixcacheError) return signal.reason;
  return new NixcacheError("interrupted", "interrupted", { cause: signal.reason });
}

/** Calls `fire` when one of the signals fires, at once if one has; returns how to stop listening. */
export function onAbort(
  signals: (AbortSignal | undefined)[],
  fire: (signal: AbortSignal) => void,
): () => void {
  const stops: (() => void)[] = [];
  for (const signal of signals) {
    if (signal === undefined) continue;
    if (signal.aborted) {
      fire(signal);
      continue;
    }
    const listener = () => fire(signal);
    signal.addEventListener("abort", listener, { once: true });
    stops.push(() => signal.removeEventListener("abort", listener));
  }
  return () => {
    for (const stop of stops) stop();
  };
}

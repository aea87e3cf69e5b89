/** The network for tests: real requests on loopback, a clock that only waiting moves, timers that a test fires. */

import { DIRECT_WEB } from "../../../src/network/web.ts";
import type { Network } from "../../../src/oci/network.ts";
import { openRegistry, type RegistryOptions } from "../../../src/oci/registry.ts";
import { PATIENT } from "../../../src/oci/retry.ts";
import type { Store } from "../../../src/oci/store.ts";
import { DOUBLE_REPOSITORY, type RegistryDouble } from "../../support/registry-double.ts";

export interface TestNetwork extends Network {
  /** Every wait so far, in ms. */
  readonly sleeps: number[];
  /** Moves the clock. */
  advance(ms: number): void;
  /** Resolves once a timer of that many ms runs, and fires it. */
  fireTimer(ms: number): Promise<void>;
}

export function testNetwork(signal?: AbortSignal): TestNetwork {
  let now = Date.UTC(2026, 0, 1);
  const sleeps: number[] = [];
  const timers = new Map<symbol, { ms: number; fire: () => void }>();
  const waiting: { ms: number; resolve: () => void }[] = [];
  const match = () => {
    for (const [id, timer] of timers) {
      const index = waiting.findIndex(({ ms }) => ms === timer.ms);
      if (index < 0) continue;
      const [waiter] = waiting.splice(index, 1);
      timers.delete(id);
      timer.fire();
      waiter?.resolve();
    }
  };
  return {
    sleeps,
    advance: (ms) => {
      now += ms;
    },
    fireTimer: (ms) =>
      new Promise((resolve) => {
        waiting.push({ ms, resolve });
        match();
      }),
    now: () => now,
    random: () => 0,
    sleep: async (ms, stop) => {
      stop?.throwIfAborted();
      sleeps.push(ms);
      now += ms;
    },
    ...DIRECT_WEB,
    // Names of tests are nobody's.
    names: { ...DIRECT_WEB.names, lookup: async () => ["203.0.113.1"], mayPin: false },
    timer: (ms, fire) => {
      const id = Symbol();
      timers.set(id, { ms, fire });
      // Whoever waits for it must not have it fired before the caller has what it returns.
      queueMicrotask(match);
      return () => void timers.delete(id);
    },
    signal,
  };
}

/** A store on a double. Without `password`: nobody is signed in. */
export function openDouble(
  { host }: Pick<RegistryDouble, "host">,
  options: Partial<RegistryOptions> & { password?: string; network?: Network } = {},
): Store {
  const { password, network = testNetwork(), ...rest } = options;
  return openRegistry(
    { kind: "registry", scheme: "http", host, repository: DOUBLE_REPOSITORY },
    {
      host: network,
      network,
      policy: PATIENT,
      credentials: async () =>
        password === undefined ? undefined : { kind: "password", username: "somebody", password },
      ...rest,
    },
  );
}

/**
 * The real publish, fold, gc and reader code in random interleavings (STORAGE-PROTOCOL, "Property tests"), over
 * a store with stale lists, a collector, clocks an hour apart, and kills at any store call.
 */
import { expect, test } from "bun:test";
import { allParts, filesOf } from "../../../src/cache/entry.ts";
import { generationId, generationTime, parseTag, ROOT_TAG } from "../../../src/cache/tags.ts";
import { NixcacheError } from "../../../src/errors.ts";
import { collectGarbage } from "../../../src/gc/gc.ts";
import type { Store } from "../../../src/oci/store.ts";
import { endGenerations, sweep } from "../../../src/protocol/end.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { Compressor } from "../../../src/publish/nar-file.ts";
import { publish } from "../../../src/publish/publish.ts";
import { silentProgress } from "../../../src/terminal/progress.ts";
import { party, storeHash, TestHost, type TestParty } from "../../support/protocol.ts";
import { testClosure } from "../../support/publish.ts";
import { propertyParameters } from "../../support/seed.ts";
import { Actor, Simulation } from "../../support/simulation.ts";

const ROUNDS = Number(process.env.NIXCACHE_ROUNDS ?? 60);
const ACTORS = 24;
const AT_ONCE = 4;
const HOUR = 3_600_000;
const NAMES = ["a", "b", "c", "d", "e", "f", "g", "h"];

interface Machine {
  readonly party: TestParty;
  /** An hour ahead or behind at most. */
  readonly skew: number;
  busy: boolean;
  /** When its last refresh that succeeded began, in the simulation's time. */
  viewFrom: number;
}

class Round {
  readonly simulation: Simulation;
  readonly machines: Machine[];
  readonly ended = new Set<string>();
  readonly committed: string[] = [];

  constructor(seed: number) {
    this.simulation = new Simulation(seed);
    const { simulation } = this;
    const kind = simulation.draw(3);
    simulation.truth.strictness = kind === 0 ? "strict" : "unknown";
    simulation.truth.refusesMissing = kind !== 2;
    this.machines = Array.from({ length: 5 }, () => ({
      party: party(simulation.truth, new TestHost()),
      skew: (simulation.random() - 0.5) * HOUR,
      busy: false,
      viewFrom: Number.NEGATIVE_INFINITY,
    }));
  }

  async run(): Promise<void> {
    const { simulation } = this;
    const actors: Actor[] = [];
    for (let started = 0; started < ACTORS || simulation.activeCount > 0; ) {
      if (started < ACTORS && simulation.activeCount < AT_ONCE && simulation.random() < 0.3) {
        const actor = this.#startOne();
        if (actor) actors.push(actor);
        started++;
      }
      if (simulation.random() < 0.1) await simulation.collect();
      this.#checkViews();
      await simulation.step();
      // An error in an actor is the test's failure, and must end it here.
      if (simulation.activeCount === 0) await Promise.all(actors.map((actor) => actor.done));
    }
    await Promise.all(actors.map((actor) => actor.done));
    simulation.time += 2 * HOUR;
    await simulation.collect();
    for (const name of this.committed) {
      const live = simulation.live().includes(name);
      if (!live && !this.ended.has(name)) throw new Error(`committed generation ${name} is lost`);
    }
    await this.#checkRoots();
  }

  #startOne(): Actor | undefined {
    const { simulation } = this;
    const free = this.machines.filter(({ busy }) => !busy);
    const machine = free[simulation.draw(free.length)];
    if (machine === undefined) return undefined;
    const killAfter = simulation.random() < 0.35 ? 1 + simulation.draw(25) : undefined;
    const actor = new Actor(simulation, { skew: machine.skew, killAfter });
    const context = { ...machine.party, host: actor.host, store: actor.store, concurrency: 1 };
    const kind = simulation.random();
    machine.busy = true;
    simulation.start(actor, async () => {
      try {
        if (kind < 0.55) await this.#publish(context);
        else if (kind < 0.8) await this.#read(machine, context);
        else await this.#collectGarbage(context);
      } finally {
        machine.busy = false;
      }
    });
    return actor;
  }

  async #publish(context: Omit<TestParty, "host"> & { host: Actor["host"] }): Promise<void> {
    const { simulation } = this;
    const names = NAMES.filter(() => simulation.random() < 0.5);
    const endedBefore = this.ended.size;
    const { closure, dump } = testClosure(names.map((name) => ({ name })));
    const publishing = publish(
      closure,
      { tool: "test", source: `source-${simulation.draw(2)}`, roots: {} },
      {
        ...context,
        upstreams: [],
        dump,
        key: undefined,
        compressor: new Compressor(1, 1),
        partBytes: 1 << 30,
        unitsAtOnce: 1,
        progress: silentProgress(),
      },
    );
    // A publisher that stands still for over an hour after each upload gives up, which loses nothing.
    const result = await publishing.catch((error) => {
      if (error instanceof NixcacheError && error.code === "protocol") return undefined;
      throw error;
    });
    if (result === undefined) return;
    if (result.generation !== null) this.committed.push(result.generation);
    // What gc ended while the publisher was slow is gc's decision.
    if (this.ended.size > endedBefore) return;
    const union = await simulation.union();
    for (const name of names) {
      if (!union.has(storeHash(name))) throw new Error(`${name} was published and is not in the cache`);
    }
  }

  async #read(machine: Machine, context: Parameters<typeof refresh>[0]): Promise<void> {
    const { simulation } = this;
    const from = simulation.time;
    const list = simulation.random() < 0.5;
    const known = context.database.view.generations().map(({ name }) => name);
    // What any list of this moment shows.
    const settled = list ? simulation.settled() : [];
    await refresh(context, { list });
    // A reader that found the root unchanged keeps the view of its last list, for an hour at most.
    machine.viewFrom = Math.max(machine.viewFrom, from - HOUR);
    const live = new Set(simulation.live());
    for (const name of [...known, ...settled].filter((name) => live.has(name))) {
      for (const hash of (await simulation.promisedBy(name)).hashes) {
        if (context.database.view.narinfo(hash) === undefined) {
          throw new Error(`a reader lost ${hash} of the live generation ${name}`);
        }
      }
    }
  }

  async #collectGarbage(context: Parameters<typeof sweep>[0]): Promise<void> {
    const { simulation } = this;
    if (simulation.random() < 0.3) return this.#collectByPolicy(context);
    const live = simulation.live().sort();
    const over = live.slice(0, -1).filter((name) => simulation.time - generationTime(name) > 30 * HOUR);
    // Noted before: a gc that is killed may have ended some of them.
    for (const name of over) this.ended.add(name);
    await endGenerations(context, over);
    await sweep(context);
  }

  /** What the real plan ends, by what its machine sees. */
  async #collectByPolicy(context: Parameters<typeof sweep>[0]): Promise<void> {
    const { simulation } = this;
    const policy = { retentionMs: 30 * HOUR, keepLast: 1, keepBranches: [], dropBranches: [] };
    const writeManifest: Store["writeManifest"] = (reference, ...rest) => {
      const tag = parseTag(reference);
      const over = simulation.live().filter((name) => tag?.kind === "dead" && generationId(name) === tag.id);
      // Noted before: a gc that is killed may have ended it.
      for (const name of over) this.ended.add(name);
      return context.store.writeManifest(reference, ...rest);
    };
    await collectGarbage({ ...context, store: { ...context.store, writeManifest } }, policy);
  }

  /** A view up to 24 hours old names no deleted blob. */
  #checkViews(): void {
    for (const { party: reader, viewFrom } of this.machines) {
      if (this.simulation.time - viewFrom > 24 * HOUR) continue;
      for (const name of NAMES) {
        const line = reader.database.view.line(storeHash(name));
        for (const { blob } of line ? allParts(filesOf(line.rest, name)) : []) {
          if (!this.simulation.truth.blobs.has(blob))
            throw new Error(`a view of today names ${name}, whose blob is gone`);
        }
      }
    }
  }

  /** A reader sees the union of the live segments whatever root it finds, also none. */
  async #checkRoots(): Promise<void> {
    const { truth, roots } = this.simulation;
    const expected = [...(await this.simulation.union())].sort();
    const tried = [undefined, ...roots.slice(-6), ...roots.slice(0, 3)];
    for (const root of tried) {
      if (root === undefined) truth.tags.delete(ROOT_TAG);
      else {
        truth.manifests.set(root.digest, root);
        truth.tags.set(ROOT_TAG, root.digest);
      }
      using reader = party(truth);
      await refresh(reader);
      const seen = NAMES.map(storeHash).filter((hash) => reader.database.view.narinfo(hash) !== undefined);
      expect(seen.sort()).toEqual(expected);
    }
  }

  dispose(): void {
    for (const { party: machine } of this.machines) machine[Symbol.dispose]();
  }
}

test(`${ROUNDS} random interleavings keep what the protocol promises`, async () => {
  const { seed } = propertyParameters();
  let committed = 0;
  let ended = 0;
  for (let i = 0; i < ROUNDS; i++) {
    const round = new Round(seed + i);
    try {
      await round.run();
      committed += round.committed.length;
      ended += round.ended.size;
    } catch (error) {
      throw new Error(`round ${i} of seed ${seed} (NIXCACHE_SEED=${seed + i} NIXCACHE_ROUNDS=1)`, {
        cause: error,
      });
    } finally {
      round.dispose();
    }
  }
  // A simulation in which nothing happens would prove nothing.
  expect(committed).toBeGreaterThan(ROUNDS);
  expect(ended).toBeGreaterThan(ROUNDS / 4);
}, 300_000);

/**
 * Copies into a cache in which others publish, collect and copy as well, over a store with stale lists, a collector,
 * clocks an hour apart, and kills at any store call. What is copied is weeks old, so that the destination's gc takes
 * its holds for left over until their segment is there.
 */
import { expect, test } from "bun:test";
import { copyCache } from "../../../src/copy/copy.ts";
import { NixcacheError } from "../../../src/errors.ts";
import { sweep } from "../../../src/protocol/end.ts";
import { GenerationWriter } from "../../../src/protocol/generation.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import {
  commitNames,
  party,
  storeHash,
  TestHost,
  type TestParty,
  testEntry,
  testRecord,
} from "../../support/protocol.ts";
import { propertyParameters } from "../../support/seed.ts";
import { Actor, Simulation } from "../../support/simulation.ts";

const ROUNDS = Number(process.env.NIXCACHE_ROUNDS ?? 40);
const ACTORS = 16;
const AT_ONCE = 4;
const HOUR = 3_600_000;

/** Two generations with holds, each of a blob, and one without, which shares a blob with them. */
async function makeSource(): Promise<MemoryStore> {
  const store = new MemoryStore();
  using publisher = party(store, new TestHost(Date.UTC(2025, 10, 1), 7));
  for (const names of [
    ["a", "b"],
    ["c", "b"],
  ]) {
    const writer = new GenerationWriter(publisher, {});
    const entries = names.map((name) => testEntry(name));
    for (const { blob } of entries) {
      await store.writeBlob(blob);
      await writer.uploaded(blob);
      await writer.holdAll();
    }
    const lines = entries.map(({ line }) => line);
    await writer.commit(
      testRecord(lines, publisher.host),
      lines,
      entries.map(({ blob }) => blob),
    );
    publisher.host.time += HOUR;
  }
  await commitNames(publisher, ["b", "d"]);
  return store;
}

class Round {
  readonly simulation: Simulation;
  readonly machines: { readonly party: TestParty; readonly skew: number; busy: boolean }[];
  readonly #source: MemoryStore;
  copies = 0;

  constructor(seed: number, source: MemoryStore) {
    this.simulation = new Simulation(seed);
    this.#source = source;
    const { simulation } = this;
    const kind = simulation.draw(3);
    simulation.truth.strictness = kind === 0 ? "strict" : "unknown";
    simulation.truth.refusesMissing = kind !== 2;
    this.machines = Array.from({ length: 5 }, () => ({
      party: party(simulation.truth, new TestHost()),
      skew: (simulation.random() - 0.5) * HOUR,
      busy: false,
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
      await simulation.step();
      if (simulation.activeCount === 0) await Promise.all(actors.map((actor) => actor.done));
    }
    await Promise.all(actors.map((actor) => actor.done));
    await this.#settle();
  }

  #startOne(): Actor | undefined {
    const { simulation } = this;
    const free = this.machines.filter(({ busy }) => !busy);
    const machine = free[simulation.draw(free.length)];
    if (machine === undefined) return undefined;
    const kind = simulation.random();
    const killAfter = simulation.random() < 0.35 ? 1 + simulation.draw(40) : undefined;
    const actor = new Actor(simulation, { skew: machine.skew, killAfter });
    const context = { ...machine.party, host: actor.host, store: actor.store, concurrency: 1 };
    machine.busy = true;
    simulation.start(actor, async () => {
      try {
        if (kind < 0.6) await this.#copy(context);
        else if (kind < 0.7) await commitNames(context as never, ["e", "b"]).catch(unlessRefused);
        else await sweep(context);
      } finally {
        machine.busy = false;
      }
    });
    return actor;
  }

  async #copy(context: Parameters<typeof sweep>[0]): Promise<void> {
    const progress = { planned() {}, moved() {} };
    const report = await copyCache({ ...context, source: this.#source, progress }).catch(unlessRefused);
    if (report === undefined) return;
    this.copies++;
    expect(report).toMatchObject({ damaged: [], gone: [], over: [] });
    const union = await this.simulation.union();
    for (const name of ["a", "b", "c", "d"]) expect(union).toContain(storeHash(name));
  }

  /** Weeks later only what was committed is left, and that is whole. */
  async #settle(): Promise<void> {
    const { simulation } = this;
    for (let week = 0; week < 3; week++) {
      simulation.time += 8 * 24 * HOUR;
      const [machine] = this.machines;
      const context = { ...(machine?.party as TestParty), host: { ...clock(simulation) } };
      await sweep({ ...context, store: simulation.truth });
      await simulation.collect();
    }
  }

  dispose(): void {
    for (const { party: machine } of this.machines) machine[Symbol.dispose]();
  }
}

/** Whoever stands still for over an hour after each upload gives up, which loses nothing. */
function unlessRefused(error: unknown): undefined {
  if (error instanceof NixcacheError && error.code === "protocol") return undefined;
  // What the test's own publisher does in the place of uploading again.
  if (error instanceof Error && error.message.startsWith("blobs missing")) return undefined;
  throw error;
}

function clock(simulation: Simulation) {
  return { now: () => simulation.time, random: simulation.random, sleep: async () => {} };
}

test(`${ROUNDS} random interleavings of copies keep every committed generation whole`, async () => {
  const { seed } = propertyParameters();
  const source = await makeSource();
  let copies = 0;
  for (let i = 0; i < ROUNDS; i++) {
    const round = new Round(seed + i, source);
    try {
      await round.run();
      copies += round.copies;
    } catch (error) {
      throw new Error(`round ${i} of seed ${seed} (NIXCACHE_SEED=${seed + i} NIXCACHE_ROUNDS=1)`, {
        cause: error,
      });
    } finally {
      round.dispose();
    }
  }
  // Some 25 to 75 of 40 rounds come to their end, for a kill or a gc is mostly faster: that none does would prove nothing.
  expect(copies).toBeGreaterThanOrEqual(Math.floor(ROUNDS / 10));
}, 300_000);

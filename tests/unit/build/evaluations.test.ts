/** Several evaluations against one, on flakes that are made up: which processes there are is counted, not timed. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  type Evaluate,
  type EvaluationsOptions,
  evaluateAll,
  type Step,
} from "../../../src/build/evaluations.ts";
import { comparePlaces, contains, type Place } from "../../../src/build/place.ts";
import type { WalkEvent } from "../../../src/build/walk.ts";
import { propertyParameters } from "../../support/seed.ts";

type Leaf = { readonly does: "derivation" | "thrown" | "abort" | "nothing"; readonly bytes: number };

/** A selector with a pattern: a set of names with something in each, below some names. */
interface Hosts {
  readonly set: readonly string[];
  readonly leaves: Readonly<Record<string, Leaf>>;
  readonly inside: readonly string[];
}

interface Process {
  readonly after: Place | null;
  bytes: number;
  /** What it held when it came to the last attribute that it evaluated. */
  before: number;
  evaluated: number;
}

/** Walks as the function in Nix does, in as many steps as it says words; each takes a turn of `turn`. */
function simulate(hosts: readonly Hosts[], turn: () => Promise<void>) {
  const processes: Process[] = [];
  const running = new Set<Process>();
  let most = 0;
  let peak = 0;
  const evaluate: Evaluate = async (after, { onStart, onEvent, stop }) => {
    const process: Process = { after, bytes: 0, before: 0, evaluated: 0 };
    processes.push(process);
    running.add(process);
    most = Math.max(most, running.size);
    onStart(processes.length - 1);
    try {
      for (const said of walk(hosts, after, process)) {
        await turn();
        if (stop.aborted) return { error: [], killed: "SIGTERM" };
        peak = Math.max(
          peak,
          [...running].reduce((sum, { bytes }) => sum + bytes, 0),
        );
        if (said === "abort") return { error: ["error: abort"] };
        onEvent(said);
        if (stop.aborted) return { error: [], killed: "SIGTERM" };
      }
      return { error: [] };
    } finally {
      running.delete(process);
    }
  };
  const used = (pid: number) => processes[pid]?.bytes;
  return { evaluate, used, processes, most: () => most, peak: () => peak };
}

function* walk(
  hosts: readonly Hosts[],
  after: Place | null,
  process: Process,
): Generator<WalkEvent | "abort"> {
  const isPassed = (place: Place) =>
    after !== null &&
    (contains(after, place) || (comparePlaces(place, after) < 0 && !contains(place, after)));
  for (const [selector, { set, leaves, inside }] of hosts.entries()) {
    for (let length = 0; length <= set.length; length++) {
      const place = { selector, path: set.slice(0, length) };
      if (!isPassed(place)) yield { kind: "begin", ...place };
    }
    const here = { selector, path: [...set] };
    if (isPassed(here)) continue;
    yield {
      kind: "names",
      ...here,
      count: Object.keys(leaves).length,
      names: Object.keys(leaves),
      isEnd: false,
    };
    for (const [name, { does, bytes }] of Object.entries(leaves)) {
      if (isPassed({ selector, path: [...set, name] })) continue;
      for (let length = 0; length <= inside.length; length++) {
        const place = { selector, path: [...set, name, ...inside.slice(0, length)] };
        if (!isPassed(place)) yield { kind: "begin", ...place };
      }
      const path = [...set, name, ...inside];
      if (isPassed({ selector, path })) continue;
      process.before = process.bytes;
      process.bytes += bytes;
      process.evaluated++;
      if (does === "abort") yield "abort";
      if (does === "thrown") yield { kind: "thrown", selector, path };
      if (does === "derivation") {
        yield { kind: "derivation", selector, path, name, drvPath: name, system: "", outputs: {} };
      }
    }
  }
}

/** What is found, each once. */
function found(steps: readonly Step[]): string[] {
  const said = steps.filter(({ kind }) => kind !== "begin" && kind !== "names");
  return [...new Set(said.map(({ kind, selector, path }) => JSON.stringify([kind, selector, path])))];
}

const UNBOUND = { limit: Number.POSITIVE_INFINITY, used: () => undefined };
const options = (more: Partial<EvaluationsOptions>): EvaluationsOptions => ({
  ...{ processes: 1, memory: UNBOUND, worth: () => 2 },
  failure: ({ error, killed }) => new Error(killed ?? error.join()),
  ...more,
});

const hostsOf = (count: number, bytes = 1, does: Leaf["does"] = "derivation"): Hosts => ({
  set: ["nixosConfigurations"],
  leaves: Object.fromEntries(
    Array.from({ length: count }, (_, index) => [`h${`${index}`.padStart(3, "0")}`, { does, bytes }]),
  ),
  inside: ["config", "toplevel"],
});

const atOnce = () => Promise.resolve();

describe("how many evaluations there are", () => {
  test("one, where nothing is bound", async () => {
    const simulation = simulate([hostsOf(20)], atOnce);
    const steps = await evaluateAll(simulation.evaluate, options({}));
    expect(found(steps).length).toBe(20);
    expect(simulation.processes.length).toBe(1);
  });

  test("a fresh one whenever the memory is used up, each from where the last one ended", async () => {
    const simulation = simulate([hostsOf(20, 100)], atOnce);
    const memory = { limit: 450, used: simulation.used };
    const steps = await evaluateAll(simulation.evaluate, options({ memory }));
    expect(found(steps).length).toBe(20);
    // Each stops at the attribute that it comes to with over 450 bytes.
    expect(simulation.processes.map(({ evaluated }) => evaluated)).toEqual([5, 5, 5, 5]);
    expect(simulation.processes.map(({ after }) => after?.path.at(-1))).toEqual([
      undefined,
      "h004",
      "h009",
      "h014",
    ]);
  });

  test("one for each attribute, where even one uses it up", async () => {
    const simulation = simulate([hostsOf(5, 1000)], atOnce);
    const memory = { limit: 10, used: simulation.used };
    expect(found(await evaluateAll(simulation.evaluate, options({ memory }))).length).toBe(5);
    expect(simulation.processes.length).toBe(5);
  });

  test("a few at once for many hosts, which share the names", async () => {
    const simulation = simulate([hostsOf(40)], atOnce);
    const steps = await evaluateAll(simulation.evaluate, options({ processes: 4 }));
    expect(found(steps)).toEqual(
      found(await evaluateAll(simulate([hostsOf(40)], atOnce).evaluate, options({}))),
    );
    expect(simulation.most()).toBe(4);
    const total = simulation.processes.reduce((sum, { evaluated }) => sum + evaluated, 0);
    // One may have begun what another one took over.
    expect(total).toBeLessThanOrEqual(40 + simulation.processes.length);
    expect(Math.max(...simulation.processes.map(({ evaluated }) => evaluated))).toBeLessThan(20);
  });

  test("a few at once hold no more than all may, but for what each is at", async () => {
    const simulation = simulate([hostsOf(60, 10)], atOnce);
    const memory = { limit: 200, used: simulation.used };
    expect(found(await evaluateAll(simulation.evaluate, options({ processes: 4, memory }))).length).toBe(60);
    expect(simulation.most()).toBe(4);
    expect(simulation.peak()).toBeLessThanOrEqual(200 + 4 * 10);
  });

  test("one for a handful, however many there might be", async () => {
    const simulation = simulate([hostsOf(4)], atOnce);
    await evaluateAll(simulation.evaluate, options({ processes: 4 }));
    expect(simulation.processes.length).toBe(1);
  });

  test("fewer at once, where one attribute takes the share of several", async () => {
    const simulation = simulate([hostsOf(30, 400)], atOnce);
    const memory = { limit: 1000, used: simulation.used };
    const steps = await evaluateAll(simulation.evaluate, options({ processes: 8, memory }));
    expect(found(steps).length).toBe(30);
    // Eight have begun by then; two stay.
    const held = simulation.processes.slice(8).map(({ before }) => before);
    expect(Math.max(...held)).toBeLessThanOrEqual(1000);
  });
});

describe("what ends an evaluation", () => {
  test("is blamed on the attribute, and the others are found", async () => {
    const leaves: Hosts["leaves"] = {
      a: { does: "derivation", bytes: 1 },
      b: { does: "abort", bytes: 1 },
      c: { does: "derivation", bytes: 1 },
    };
    const simulation = simulate([{ set: ["s"], leaves, inside: ["in"] }], atOnce);
    const steps = await evaluateAll(simulation.evaluate, options({}));
    expect(found(steps).map((text) => JSON.parse(text).flat().join(" "))).toEqual([
      "derivation 0 s a in",
      "broken 0 s b in",
      "derivation 0 s c in",
    ]);
  });

  test("by a signal, is tried again with fewer at once, and then told", async () => {
    let calls = 0;
    const failing: Evaluate = async () => {
      calls++;
      return { error: [], killed: "SIGKILL" };
    };
    await expect(evaluateAll(failing, options({ processes: 3 }))).rejects.toThrow("SIGKILL");
    expect(calls).toBe(1);

    const { evaluate } = simulate([hostsOf(6)], atOnce);
    let kills = 0;
    const killing: Evaluate = (after, listener) => {
      const stop = new AbortController();
      let derivations = 0;
      const onEvent = (event: WalkEvent) => {
        listener.onEvent(event);
        if (event.kind === "derivation" && ++derivations === 2) {
          kills++;
          stop.abort();
        }
      };
      return evaluate(after, { ...listener, onEvent, stop: AbortSignal.any([stop.signal, listener.stop]) });
    };
    expect(found(await evaluateAll(killing, options({}))).length).toBe(6);
    expect(kills).toBeGreaterThan(1);
  });

  test("before anything was said, is an error that ends all others", async () => {
    const { evaluate } = simulate([hostsOf(30)], atOnce);
    let calls = 0;
    let open = 0;
    const failing: Evaluate = async (after, listener) => {
      if (++calls === 3) return { error: ["error: no"] };
      open++;
      const result = await evaluate(after, listener);
      open--;
      return result;
    };
    await expect(evaluateAll(failing, options({ processes: 4 }))).rejects.toThrow("error: no");
    expect(open).toBe(0);
  });
});

test("whatever the flake, the memory and the order of what is said, all find the same", async () => {
  const leaf = fc.record({
    does: fc.constantFrom<Leaf["does"]>(
      "derivation",
      "derivation",
      "derivation",
      "thrown",
      "abort",
      "nothing",
    ),
    bytes: fc.integer({ min: 0, max: 100 }),
  });
  const names = fc.uniqueArray(fc.string({ minLength: 1, maxLength: 3 }), { maxLength: 25 });
  const hosts = fc
    .tuple(names, fc.infiniteStream(leaf), fc.constantFrom([], ["in"], ["in", "deep"]))
    .map(([list, stream, inside]) => {
      const sorted = list.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
      return { sorted, leaves: [...sorted].map(() => stream.next().value as Leaf), inside };
    });
  await fc.assert(
    fc.asyncProperty(
      fc.array(hosts, { minLength: 1, maxLength: 3 }),
      fc.scheduler(),
      fc.integer({ min: 1, max: 6 }),
      fc.integer({ min: 1, max: 600 }),
      async (drawn, scheduler, processes, limit) => {
        const flake = drawn.map(({ sorted, leaves, inside }, index): Hosts => {
          // Names that look like numbers would come first among an object's keys.
          const entries = sorted.map((name, at) => [`-${name}`, leaves[at] as Leaf] as const);
          return { set: [`set${index}`], leaves: Object.fromEntries(entries), inside };
        });
        const one = found(await evaluateAll(simulate(flake, atOnce).evaluate, options({})));
        const simulation = simulate(flake, () => scheduler.schedule(Promise.resolve()));
        const memory = { limit, used: simulation.used };
        const several = evaluateAll(simulation.evaluate, options({ processes, memory, worth: () => 1 }));
        expect(found(await scheduler.waitFor(several))).toEqual(one);
        expect(simulation.most()).toBeLessThanOrEqual(processes);
        // Over its share it begins nothing more.
        for (const { before, evaluated } of simulation.processes)
          if (evaluated > 1) expect(before).toBeLessThanOrEqual(limit);
      },
    ),
    { ...propertyParameters(), numRuns: 300 },
  );
});

import { describe, expect, test } from "bun:test";
import type { BuiltPath } from "../../../src/nix/built.ts";
import type { PublishResult } from "../../../src/publish/publish.ts";
import { type Stopping, stopping } from "../../../src/watch/stopping.ts";
import { publishWhile, type WatchOptions } from "../../../src/watch/watch.ts";
import { TestHost } from "../../support/protocol.ts";

const GIB = 1024 ** 3;

interface Round {
  readonly paths: readonly string[];
  /** Seconds from the beginning. */
  readonly at: number;
}

/** A watch whose news a test hands in, and whose rounds it can hold up or let fail. */
function setUp(onRound: (round: Round, until: AbortSignal) => Promise<void> | void = () => {}) {
  const host = new TestHost();
  const start = host.now();
  const rounds: Round[] = [];
  const committed: string[] = [];
  const warnings: string[] = [];
  const abort = new AbortController();
  let fresh: BuiltPath[] = [];
  const seconds = () => Math.round((host.now() - start) / 1000);
  const timers = new Map<number, () => void>();
  const stop: Stopping = stopping(abort.signal, {
    sleep: (ms) => new Promise<void>((resolve) => timers.set(ms, resolve)),
  });
  const options: WatchOptions = {
    host,
    stopping: stop,
    log: { info() {}, warn: (message) => warnings.push(message) },
    source: {
      news() {
        const news = fresh;
        fresh = [];
        return news;
      },
      committed: (paths) => void committed.push(...paths),
    },
    async publish(paths, until) {
      const round = { paths, at: seconds() };
      rounds.push(round);
      await onRound(round, until);
      return resultOf(paths.length);
    },
  };
  return {
    ...{ rounds, committed, warnings, abort, options, seconds },
    add: (...names: string[]) => void fresh.push(...names.map((path) => ({ path, narSize: 1 }))),
    addLarge: (...paths: string[]) => void fresh.push(...paths.map((path) => ({ path, narSize: GIB }))),
    /** Lets a time after the signal pass. */
    pass: (ms: number) => timers.get(ms)?.(),
  };
}

function resultOf(uploaded: number): PublishResult {
  return {
    generation: "g",
    paths: { closure: uploaded, upstream: 0, restated: 0, uploaded },
    bytes: { nar: 0, sent: 10 },
    leftOut: [],
    newPaths: [],
  };
}

/** A turn after the other, until the clock of the test is so far. */
async function until(condition: () => boolean): Promise<void> {
  for (let turns = 0; !condition(); turns++) {
    if (turns > 100_000) throw new Error("waited in vain");
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe("rounds", () => {
  test("the first at once, then one a minute with all so far, and none without news", async () => {
    const { options, rounds, committed, add, seconds } = setUp();
    const value = await publishWhile(async () => {
      add("a");
      await until(() => rounds.length === 1);
      add("b");
      await until(() => seconds() > 30);
      add("c");
      await until(() => seconds() > 300);
      return "done";
    }, options);
    expect(rounds.map(({ paths }) => paths)).toEqual([["a"], ["a", "b", "c"]]);
    expect(rounds[0]?.at).toBeLessThanOrEqual(2);
    expect((rounds[1]?.at ?? 0) - (rounds[0]?.at ?? 0)).toBe(60);
    expect(committed).toEqual(["a", "b", "c"]);
    expect(value).toBe("done");
  });

  test("take on a bounded amount, and go on at once while there is more than that", async () => {
    const { options, rounds, add, addLarge, seconds } = setUp();
    await publishWhile(async () => {
      addLarge("x", "y");
      add(...Array.from({ length: 700 }, (_, i) => `p${i}`));
      await until(() => rounds.length === 3 && seconds() > 30);
    }, options);
    expect(rounds.map(({ paths }) => paths.length)).toEqual([1, 2, 502]);
    expect(rounds[2]?.at).toBeLessThan(10);
  });

  test("one at a time, and the one under way at the end is waited for", async () => {
    const gate = Promise.withResolvers<void>();
    const { options, rounds, add, seconds, committed } = setUp(() => gate.promise);
    const running = publishWhile(async () => {
      add("a");
      await until(() => rounds.length === 1);
      add("b");
      await until(() => seconds() > 200);
    }, options);
    let isOver = false;
    void running.then(() => {
      isOver = true;
    });
    await until(() => seconds() > 200);
    for (let turns = 0; turns < 100; turns++) await new Promise((resolve) => setImmediate(resolve));
    expect([rounds.length, isOver]).toEqual([1, false]);
    gate.resolve();
    await running;
    // What came since is the final publish's.
    expect(committed).toEqual(["a"]);
  });

  test("that fail are tried again, ever more seldom, with the same paths first", async () => {
    let failures = 4;
    const { options, rounds, add, warnings, committed, seconds } = setUp(() => {
      if (failures-- > 0) throw new Error("the registry is down");
    });
    await publishWhile(async () => {
      add("a");
      await until(() => rounds.length === 1);
      add("b");
      await until(() => committed.length > 0 || seconds() > 5000);
    }, options);
    const waits = rounds.slice(1).map(({ at }, i) => at - (rounds[i]?.at ?? 0));
    // From the failure, by a clock that moves with each look.
    expect(waits).toEqual([61, 121, 241, 481]);
    expect(committed).toEqual(["a", "b"]);
    expect(warnings).toEqual(["what is finished is not published yet: the registry is down"]);
  });

  test("news that cannot be had are said once and looked for again", async () => {
    const { options, rounds, warnings } = setUp();
    let failures = 3;
    const news = () => {
      if (failures-- > 0) throw new Error("locked");
      return failures === -1 ? [{ path: "a", narSize: 1 }] : [];
    };
    const source = { ...options.source, news };
    await publishWhile(() => until(() => rounds.length === 1), { ...options, source });
    expect(warnings).toEqual(["cannot see what is finished: locked"]);
  });
});

describe("the end", () => {
  test("of a job that fails is its failure, after the round under way", async () => {
    const { options, rounds, add } = setUp();
    const running = publishWhile(async () => {
      add("a");
      await until(() => rounds.length === 1);
      throw new Error("build failed");
    }, options);
    await expect(running).rejects.toThrow("build failed");
    expect(rounds).toHaveLength(1);
  });

  test("by a signal: one more round with what waits, then the reason, whether the job ends or not", async () => {
    const { options, rounds, add, abort, pass } = setUp();
    const running = publishWhile(async () => {
      add("a");
      await until(() => rounds.length === 1);
      add("b");
      abort.abort(new Error("stopped by SIGTERM"));
      await until(() => rounds.length === 2);
      pass(7_000);
      await new Promise(() => {});
    }, options);
    await expect(running).rejects.toThrow("stopped by SIGTERM");
    expect(rounds.map(({ paths }) => paths)).toEqual([["a"], ["a", "b"]]);
  });

  test("by a signal in the middle of a round: it is told when to stop, and is the last", async () => {
    const { options, rounds, add, abort, committed, pass } = setUp(async (_, until) => {
      if (!until.aborted) await new Promise((resolve) => until.addEventListener("abort", resolve));
    });
    const running = publishWhile(async () => {
      add("a");
      await until(() => rounds.length === 1);
      add("b");
      abort.abort(new Error("stopped by SIGINT"));
      pass(3_000);
    }, options);
    await expect(running).rejects.toThrow("stopped by SIGINT");
    expect(rounds.map(({ paths }) => paths)).toEqual([["a"]]);
    // Nobody knows whether all of it was uploaded in time.
    expect(committed).toEqual([]);
  });
});

test("the times after a signal", async () => {
  const abort = new AbortController();
  const waits: { ms: number; over: () => void; signal: AbortSignal | undefined }[] = [];
  const sleep = (ms: number, signal?: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
      waits.push({ ms, over: resolve, signal });
      signal?.addEventListener("abort", () => reject(signal.reason));
    });
  const stop = stopping(abort.signal, { sleep });
  expect(waits).toEqual([]);
  abort.abort("why");
  expect(waits.map(({ ms }) => ms)).toEqual([3_000, 7_000]);
  waits[0]?.over();
  await Promise.resolve();
  expect([stop.until.aborted, stop.until.reason, stop.cut.aborted]).toEqual([true, "why", false]);
  stop[Symbol.dispose]();
  await Promise.resolve();
  expect(waits[1]?.signal?.aborted).toBe(true);
  expect(stop.cut.aborted).toBe(false);
});

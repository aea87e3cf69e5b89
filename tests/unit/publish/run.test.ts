/** Several publishes of one run: partial generations, and the one that replaces them. */
import { describe, expect, test } from "bun:test";
import { NixcacheError } from "../../../src/errors.ts";
import { planGc } from "../../../src/gc/plan.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { RunMemory } from "../../../src/publish/memory.ts";
import { Compressor } from "../../../src/publish/nar-file.ts";
import {
  type Origin,
  type PublishContext,
  type PublishOptions,
  publish,
} from "../../../src/publish/publish.ts";
import { silentProgress } from "../../../src/terminal/progress.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { party, type TestParty, viewOf } from "../../support/protocol.ts";
import { type TestPath, testClosure } from "../../support/publish.ts";

const ORIGIN: Origin = { tool: "test", source: "repository", selection: "packages", roots: {} };
const PARTIAL: Origin = { ...ORIGIN, partial: true };

/** Large ones are uploads of their own, one after the other. */
const SMALL: TestPath = { name: "small" };
const LARGE: TestPath = { name: "large", size: 2_000_000 };
const TOP: TestPath = { name: "top", size: 2_000_000, references: ["large"] };
const ALL = [SMALL, LARGE, TOP];

function publisher(machine: TestParty, more: Partial<PublishContext> = {}) {
  return async (paths: readonly TestPath[], origin: Origin, options: PublishOptions = {}) => {
    const { closure, dump, dumped } = testClosure(paths);
    const context: PublishContext = {
      ...machine,
      ...{ upstreams: [], dump, key: undefined, compressor: new Compressor(3, 1) },
      ...{ partBytes: 1 << 30, unitsAtOnce: 1, progress: silentProgress() },
      ...more,
    };
    machine.host.time += 60_000;
    return { result: await publish(closure, origin, context, options), dumped };
  };
}

async function held(store: MemoryStore) {
  using machine = party(store);
  await refresh(machine, { list: true });
  const generations = machine.database.view.generations();
  return {
    names: viewOf(machine, ["small", "large", "top"]),
    partial: generations.map(({ record }) => record.partial),
  };
}

const twice = (store: MemoryStore) =>
  store.written.filter((digest, i) => store.written.indexOf(digest) !== i);

describe("no more may be uploaded", () => {
  test("in the middle: what is uploaded is a partial generation, and the next one does the rest", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const run = publisher(machine);
    const abort = new AbortController();
    let blobs = 0;
    store.before = (call) => {
      // A registry's upload ends with the signal's reason.
      if (call !== "writeBlob" || ++blobs !== 2) return;
      abort.abort(new NixcacheError("interrupted", "stopped by SIGTERM"));
      throw abort.signal.reason;
    };
    const { result } = await run(ALL, ORIGIN, { until: abort.signal });
    store.before = () => {};
    expect(result.paths).toEqual({ closure: 3, upstream: 0, restated: 0, uploaded: 1 });
    expect(result.leftOut.map(({ reason }) => reason)).toEqual([
      "stopped before it was uploaded",
      "stopped before it was uploaded",
    ]);
    const first = await held(store);
    expect(first.partial).toEqual([true]);
    expect(first.names).toHaveLength(1);

    const { result: whole, dumped } = await run(ALL, ORIGIN);
    expect(whole.paths).toMatchObject({ restated: 1, uploaded: 2 });
    expect(dumped).toHaveLength(2);
    expect(await held(store)).toEqual({ names: ["large", "small", "top"], partial: [true, undefined] });
    expect(twice(store)).toEqual([]);
  });

  test("from the beginning: nothing is committed", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { result, dumped } = await publisher(machine)(ALL, ORIGIN, { until: AbortSignal.abort() });
    expect(result).toMatchObject({ generation: null, paths: { uploaded: 0 } });
    expect(dumped).toEqual([]);
    expect(store.tagsOf("seg-")).toEqual([]);
  });

  test("when all is uploaded: the generation is a whole one", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const abort = new AbortController();
    store.before = (call, subject) => {
      if (call === "writeManifest" && subject.startsWith("seg-")) abort.abort();
    };
    await publisher(machine)(ALL, ORIGIN, { until: abort.signal });
    expect((await held(store)).partial).toEqual([undefined]);
  });
});

describe("partial generations", () => {
  test("the whole one of the same paths comes nevertheless, and gc ends the others", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const run = publisher(machine);
    await run([SMALL], PARTIAL);
    await run(ALL, PARTIAL);
    const { result } = await run(ALL, ORIGIN);
    expect(result.generation).not.toBeNull();
    expect((await held(store)).partial).toEqual([true, true, undefined]);
    // A second whole one would say nothing new.
    expect((await run(ALL, ORIGIN)).result.generation).toBeNull();

    await refresh(machine, { list: true });
    const policy = { retentionMs: 86_400_000, keepLast: 1, keepBranches: [], dropBranches: [] };
    const { decisions } = planGc(
      machine.database.view.generations(),
      policy,
      machine.host.now() + 90_000_000,
    );
    expect(decisions.map(({ rule }) => rule)).toEqual(["partial", "partial", "newest"]);
  });

  test("are not made of what the cache has", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const run = publisher(machine);
    await run([SMALL], ORIGIN);
    expect((await run([SMALL], PARTIAL)).result.generation).toBeNull();
    expect((await run([SMALL, LARGE], PARTIAL)).result.generation).not.toBeNull();
  });
});

describe("the memory of a run", () => {
  test("what was uploaded for a commit that failed is not sent again, nor read", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const run = publisher(machine, { memory: new RunMemory() });
    store.before = (call, subject) => {
      if (call === "writeManifest" && subject.startsWith("seg-"))
        throw new NixcacheError("unreachable", "down");
    };
    await expect(run([SMALL, LARGE], PARTIAL)).rejects.toThrow("down");
    store.before = () => {};
    // In another company small NARs would be packed anew.
    const { result, dumped } = await run([{ name: "also-small" }, ...ALL], ORIGIN);
    expect(dumped.toSorted()).toEqual(["also-small", "top"]);
    expect(result.paths).toMatchObject({ closure: 4, restated: 0, uploaded: 4 });
    expect(twice(store)).toEqual([]);
  });

  test("a generation that the list does not show yet is not uploaded again", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const run = publisher(machine, { memory: new RunMemory() });
    const writeManifest = store.writeManifest.bind(store);
    store.writeManifest = async (reference, mediaType, bytes) => {
      if (reference.startsWith("seg-")) store.hidden.add(reference);
      return await writeManifest(reference, mediaType, bytes);
    };
    await run([SMALL, LARGE], PARTIAL);
    const { result, dumped } = await run(ALL, ORIGIN);
    expect(dumped).toEqual(["top"]);
    expect(result.paths).toMatchObject({ uploaded: 3 });
    expect(twice(store)).toEqual([]);
  });

  test("the last publish tells of all", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    await publisher(machine)([SMALL], { ...ORIGIN, selection: "others" });
    const run = publisher(machine, { memory: new RunMemory() });
    const { result: first } = await run([SMALL, LARGE], PARTIAL);
    const { result } = await run(ALL, ORIGIN);
    expect(result.paths).toEqual({ closure: 3, upstream: 0, restated: 1, uploaded: 2 });
    expect(result.newPaths.map(({ path }) => path.slice(44)).sort()).toEqual(["large", "top"]);
    expect(result.newPaths.every(({ fileSize }) => fileSize !== null && fileSize > 0)).toBe(true);
    expect(result.bytes.sent).toBeGreaterThan(first.bytes.sent);
  });
});

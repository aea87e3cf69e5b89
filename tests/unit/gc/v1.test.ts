/** A cache of nixcache-oci from its adoption to the day when nothing needs it any more. */
import { describe, expect, test } from "bun:test";
import { mkdtemp, readdir, rm, utimes } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { PublishRecord } from "../../../src/cache/record.ts";
import { adoptedTag, generationId, generationName, segmentTag } from "../../../src/cache/tags.ts";
import { collectGarbage } from "../../../src/gc/gc.ts";
import { type Policy, planGc } from "../../../src/gc/plan.ts";
import { type Digest, digestHex, digestOf } from "../../../src/oci/digest.ts";
import { openLayout } from "../../../src/oci/layout.ts";
import { endGenerations } from "../../../src/protocol/end.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { repair } from "../../../src/verify/repair.ts";
import { verify } from "../../../src/verify/verify.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitNames, party, type TestParty } from "../../support/protocol.ts";
import { pushV1, V1_PUBLIC_KEY, v1Path } from "../../support/v1-cache.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const POLICY: Policy = { retentionMs: 30 * DAY, keepLast: 1, keepBranches: [], dropBranches: [] };
const MAIN: Partial<PublishRecord> = { source: "repo main", branch: "main", selection: "packages" };
const A = v1Path("a");
const B = v1Path("b", ["a"]);

describe("what was adopted lives", () => {
  const NOW = Date.UTC(2026, 5, 1);
  let serial = 0;
  const generation = (days: number, record: Partial<PublishRecord> = {}) => ({
    name: generationName(NOW - days * DAY, (++serial).toString(16).padStart(16, "0")),
    record: {
      time: "",
      tool: "test",
      roots: {},
      keys: [],
      content: digestOf(""),
      entries: 1,
      source: "",
      ...MAIN,
      ...record,
    },
  });
  const v1 = (days: number) => {
    const { branch: _, ...record } = generation(days, {
      source: "nixcache-oci",
      selection: "cache-index",
    }).record;
    return { name: generation(days).name, record };
  };

  test.each<[string, ReturnType<typeof v1>[], Partial<Policy>, string]>([
    ["for ever when nobody has published since", [v1(400), generation(500)], {}, "newest"],
    ["for the retention", [v1(29), generation(20)], {}, "retention"],
    ["no longer once a repository has published after it", [v1(31), generation(20)], {}, "age!"],
    [
      "whatever branch that was on",
      [v1(31), generation(2, { branch: "next", source: "repo next" })],
      {},
      "age!",
    ],
    [
      "but not by a branch that itself is not kept",
      [v1(31), generation(2, { branch: "12/merge" })],
      { keepBranches: ["main"] },
      "newest",
    ],
    [
      "nor by one that is dropped",
      [v1(31), generation(2, { branch: "12/merge" })],
      { dropBranches: ["*/merge"] },
      "newest",
    ],
    ["nor by bare paths", [v1(31), generation(2, { source: "paths" })], {}, "newest"],
    ["nor by a pin", [v1(31), generation(2, { source: "pin:a" })], {}, "newest"],
    ["nor by a part of a run", [v1(31), generation(2, { partial: true })], {}, "newest"],
    ["not beside a newer one", [v1(40), v1(35)], {}, "age!"],
    ["as one of the last two", [v1(40), generation(35)], { keepLast: 2 }, "last"],
    ["however large, until then", [v1(40)], { maxBytes: 0 }, "newest"],
    ["a day in any case", [v1(0.9), generation(0.5)], { retentionMs: 0, maxBytes: 0 }, "young"],
  ])("%s", (_, generations, policy, expected) => {
    const { decisions } = planGc(generations, { ...POLICY, ...policy }, NOW);
    const [first] = generations;
    const { rule, ends } = decisions.find(({ name }) => name === first?.name) ?? {};
    expect(`${rule}${ends ? "!" : ""}`).toBe(expected);
  });

  test("and its end says what has replaced it", () => {
    const [old, own] = [v1(31), generation(20)];
    const { decisions } = planGc([old, own], POLICY, NOW);
    expect(decisions[0]?.reason).toBe(`older than 30 days, and ${segmentTag(own.name)} succeeded it`);
  });
});

async function collect(machine: TestParty, policy: Partial<Policy> = {}) {
  return collectGarbage(machine, { ...POLICY, ...policy });
}

describe("gc", () => {
  test("adopts first; in a dry run it changes nothing", async () => {
    const store = new MemoryStore();
    await pushV1(store, [A, B]);
    using machine = party(store);
    const tags = new Map(store.tags);
    const dry = await collectGarbage(machine, POLICY, { dryRun: true });
    expect([dry.adopted, dry.decisions]).toEqual([undefined, []]);
    expect(store.tags).toEqual(tags);
    const report = await collect(machine);
    expect(report).toMatchObject({ adopted: { paths: 2, leftOut: 0 }, decisions: [{ rule: "young" }] });
    expect(report.sizes.outputs?.map(({ output }) => output)).toEqual([expect.stringMatching(/-b$/)]);
    expect((await collect(machine)).adopted).toBeUndefined();
  });

  test("ends it once it was replaced, frees what nobody restated, and never brings it back", async () => {
    const store = new MemoryStore();
    const index = await pushV1(store, [A, B]);
    using machine = party(store);
    await collect(machine);
    machine.host.time += 40 * DAY;
    expect((await collect(machine)).decisions).toMatchObject([{ ends: false, rule: "newest" }]);
    await commitNames(machine, ["own"], MAIN);
    expect((await collect(machine)).decisions).toMatchObject([{ ends: true }, { ends: false }]);
    expect(store.tags.has(adoptedTag(index))).toBe(true);
    machine.host.time += 27 * HOUR;
    const { freed } = await collect(machine);
    expect(freed).toMatchObject({ gone: 1, refused: [] });
    expect(store.tagsOf("seg-").length).toBe(1);
    expect(store.tags.has("cache-index")).toBe(true);
    for (const digest of store.manifests.keys())
      if (![...store.tags.values()].includes(digest)) store.manifests.delete(digest);
    store.collect();
    expect(store.blobs.has(A.digest)).toBe(false);
    for (const host of [machine.host, undefined]) {
      using reader = party(store, host);
      await refresh(reader, { list: true });
      expect(reader.database.view.narinfo(A.hash)).toBeUndefined();
      expect((await collect(reader)).adopted).toBeUndefined();
      expect(store.tags.has(adoptedTag(index))).toBe(true);
    }
  });

  test("forgets what was adopted once the old tag names something else, or is gone", async () => {
    const store = new MemoryStore();
    const first = await pushV1(store, [A]);
    using machine = party(store);
    await collect(machine);
    machine.host.time += 2 * DAY;
    await commitNames(machine, ["own"], MAIN);
    const end = async () => {
      const old = machine.database.view
        .generations()
        .filter(({ record }) => record.source === "nixcache-oci");
      await endGenerations(
        machine,
        old.map(({ name }) => name),
      );
    };
    await refresh(machine, { list: true });
    await end();
    expect(store.tagsOf("adopted-")).toEqual([adoptedTag(first)]);
    // Somebody still runs the old tool.
    const second = await pushV1(store, [A, B]);
    expect((await collect(machine)).adopted).toMatchObject({ paths: 2 });
    expect(store.tagsOf("adopted-")).toEqual([]);
    machine.host.time += 2 * DAY;
    await end();
    expect(store.tagsOf("adopted-")).toEqual([adoptedTag(second)]);
    store.tags.delete("cache-index");
    await collect(machine);
    expect(store.tagsOf("adopted-")).toEqual([]);
  });

  test("killed while it ends it: at no moment is the old index read again", async () => {
    class Killed extends Error {}
    for (let at = 0, done = false; !done; at++) {
      const store = new MemoryStore();
      await pushV1(store, [A]);
      using machine = party(store);
      await collect(machine);
      machine.host.time += 40 * DAY;
      await commitNames(machine, ["own"], MAIN);
      let left = at;
      store.before = () => {
        if (left-- <= 0) throw new Killed();
      };
      done = await collect(machine).then(
        () => true,
        (error) => {
          if (error instanceof Killed) return false;
          throw error;
        },
      );
      store.before = () => {};
      using reader = party(store, machine.host);
      await refresh(reader, { list: true });
      expect(reader.database.view.v1Layer()).toBeUndefined();
      machine.host.time += 27 * HOUR;
      await collect(machine);
      machine.host.time += 27 * HOUR;
      await collect(machine);
      expect(store.tagsOf("seg-").length).toBe(1);
      expect(store.tagsOf("adopted-").length).toBe(1);
    }
  });

  test("of a folder removes no NAR before it has adopted it, and what was left out afterwards", async () => {
    const folder = await mkdtemp(join(tmpdir(), "nixcache-test-v1-"));
    try {
      const lost = v1Path("lost", ["gone"]);
      const gone = v1Path("gone");
      const make = party(new MemoryStore());
      using machine = {
        ...make,
        store: openLayout(folder, { host: make.host }),
        [Symbol.dispose]: make[Symbol.dispose],
      };
      await pushV1(machine.store, [A, B, gone, lost]);
      const blobs = join(folder, "blobs/sha256");
      await rm(join(blobs, digestHex(gone.digest)));
      const longAgo = new Date(machine.host.now() - 400 * DAY);
      for (const name of await readdir(blobs)) await utimes(join(blobs, name), longAgo, longAgo);
      expect((await collect(machine)).adopted).toMatchObject({ paths: 2, leftOut: 2 });
      const left = await readdir(blobs);
      const has = (digest: Digest) => left.includes(digestHex(digest));
      expect([A, B, lost].map(({ digest }) => has(digest))).toEqual([true, true, false]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe("verify", () => {
  const check = (machine: TestParty, deep = false) =>
    verify({ ...machine, upstreams: [], keys: [] }, { deep });

  test("says that an index is not adopted; what was adopted it checks, signatures and files too", async () => {
    const store = new MemoryStore();
    await pushV1(store, [A, B]);
    using machine = party(store);
    expect((await check(machine)).findings).toMatchObject([{ kind: "not-adopted", subject: "cache-index" }]);
    await collect(machine);
    const clean = await check(machine, true);
    expect(clean.findings).toEqual([]);
    expect(clean.counts).toMatchObject({ generations: 1, entries: 2, blobs: 2, unsigned: 0 });
    expect(machine.database.view.generations()[0]?.record.keys).toEqual([V1_PUBLIC_KEY]);
    store.blobs.set(A.digest, new TextEncoder().encode("xz of z"));
    expect((await check(machine)).findings).toEqual([]);
    expect((await check(machine, true)).findings).toMatchObject([
      { kind: "blob-corrupt", subject: A.digest },
    ]);
  });

  test("--repair keeps the word that the index was adopted", async () => {
    const store = new MemoryStore();
    await pushV1(store, [A, B, v1Path("c")]);
    using machine = party(store);
    await collect(machine);
    store.blobs.delete(A.digest);
    const { replaced } = await repair(machine, await check(machine));
    expect(replaced.length).toBe(1);
    using reader = party(store);
    await refresh(reader, { list: true });
    expect(reader.database.view.v1Layer()).toBeUndefined();
    expect(reader.database.view.count()).toBe(1);
    expect(generationId(replaced[0]?.by ?? "")).not.toBe("");
  });
});

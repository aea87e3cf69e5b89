/** Several builds of one path in a cache: everybody is shown the same, whatever was folded when, and nothing is lost. */
import { describe, expect, test } from "bun:test";
import { Catalog } from "../../../src/cache/catalog.ts";
import { entryOf } from "../../../src/cache/entry.ts";
import { formatPublicKey, generateSecretKey, publicKeyOf } from "../../../src/nar/signing-key.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { closureLines } from "../../../src/protocol/restate.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import {
  commitPaths,
  party,
  storeHash,
  type TestEntryOptions,
  type TestParty,
  testEntry,
} from "../../support/protocol.ts";

const keyOf = (name: string, seed: number) => generateSecretKey(name, new Uint8Array(32).fill(seed));
const [OLD, NEW] = [keyOf("cache-1", 1), keyOf("cache-2", 2)];
const P = storeHash("p");

/** In the order in which they are published. */
const BUILDS: Readonly<Record<string, TestEntryOptions>> = {
  old: { content: "old", keys: [OLD], added: 1 },
  new: { content: "new", keys: [NEW], added: 2 },
  unsigned: { content: "unsigned", added: 3 },
  forged: { content: "forged", added: 4, sigs: [`cache-2:${Buffer.alloc(64).toString("base64")}`] },
};

const hashOf = (build: TestEntryOptions) => entryOf(testEntry("p", build).line).info.narHash;

/** The build of `p` that a machine shows, in each way in which it shows one. */
async function shownTo(machine: TestParty): Promise<string | undefined> {
  await refresh(machine, { list: true });
  const { view } = machine.database;
  const line = view.line(P);
  expect(view.narinfo(P)).toBe(line?.narinfo);
  expect(closureLines(view, [P]).lines).toEqual(line ? [line] : []);
  expect(view.hashesFrom("", 10)).toEqual([P, storeHash("q")].sort());
  expect(view.count()).toBe(2);
  using catalog = new Catalog(machine.database);
  await catalog.readNames(async () => {});
  expect([...catalog.list("p", "name")].map(({ added }) => added)).toEqual([line?.added ?? 0]);
  return Object.keys(BUILDS).find(
    (name) => line && entryOf(line).info.narHash === hashOf(BUILDS[name] ?? {}),
  );
}

async function publishAll(store: MemoryStore, order: readonly string[], foldAfter: readonly number[]) {
  using publisher = party(store);
  for (const [at, name] of order.entries()) {
    publisher.host.time += 60_000;
    const keys = { old: [OLD], new: [NEW] }[name]?.map((key) => formatPublicKey(publicKeyOf(key))) ?? [];
    await commitPaths(publisher, { p: BUILDS[name] ?? {}, q: {} }, { keys });
    if (foldAfter.includes(at)) await fold(publisher);
  }
}

describe("a path with builds by two keys, one unsigned, and one with a forged signature", () => {
  const names = Object.keys(BUILDS);
  const orders = [names, names.toReversed(), ["unsigned", "old", "forged", "new"]];
  const folds = [[], [3], [0, 1, 2, 3], [1, 3]];
  test.each(
    orders.flatMap((order) => folds.map((after) => [order.join(), after.join(), order, after] as const)),
  )("is shown alike: published %s, folded after %s", async (_, __, order, after) => {
    const store = new MemoryStore();
    await publishAll(store, order, after);
    using anybody = party(store);
    using former = party(store, undefined, [publicKeyOf(OLD)]);
    using current = party(store, undefined, [publicKeyOf(NEW)]);
    using both = party(store, undefined, [OLD, NEW].map(publicKeyOf));
    const shown = [];
    for (const machine of [anybody, former, current, both]) shown.push(await shownTo(machine));
    expect(shown).toEqual(["new", "old", "new", "new"]);
    // What another machine folds hides nothing from the others.
    await fold(former);
    using later = party(store, undefined, [publicKeyOf(OLD)]);
    expect([await shownTo(anybody), await shownTo(later)]).toEqual(["new", "old"]);
  });

  test("has a line in the root for each build that may be shown to somebody", async () => {
    const store = new MemoryStore();
    await publishAll(store, ["old", "unsigned", "new"], [2]);
    using reader = party(store);
    await refresh(reader);
    const { view } = reader.database;
    expect(view.uncovered()).toEqual([]);
    const hashes = view.linesOf(P).map((line) => entryOf(line).info.narHash);
    expect(hashes).toEqual([BUILDS.old, BUILDS.new, BUILDS.unsigned].map((build) => hashOf(build ?? {})));
  });
});

test("two keys that sign the same build at the same moment: clients of either take it", async () => {
  const store = new MemoryStore();
  using publisher = party(store);
  await commitPaths(publisher, { p: { keys: [OLD], added: 1 } });
  await commitPaths(publisher, { p: { keys: [NEW], added: 2 } });
  for (const folded of [false, true]) {
    if (folded) await fold(publisher);
    using reader = party(store);
    await refresh(reader);
    const line = reader.database.view.line(P);
    const names = line && entryOf(line).info.sigs.map((sig) => sig.slice(0, sig.indexOf(":")));
    expect([line?.added, names]).toEqual([2, ["cache-1", "cache-2"]]);
    expect(reader.database.view.narinfo(P)).toBe(line?.narinfo);
  }
});

test("a key that a later generation names counts at once, for whoever has the index open", async () => {
  const store = new MemoryStore();
  using publisher = party(store);
  using reader = party(store);
  await commitPaths(publisher, { p: { ...BUILDS.old } });
  await commitPaths(publisher, { p: { ...BUILDS.forged } });
  await refresh(reader, { list: true });
  const shownHash = () => {
    const line = reader.database.view.line(P);
    return line && entryOf(line).info.narHash;
  };
  // Nobody knows either key, so the later one is shown.
  expect(shownHash()).toBe(hashOf(BUILDS.forged ?? {}));
  const keys = [OLD, NEW].map((key) => formatPublicKey(publicKeyOf(key)));
  publisher.host.time += 60_000;
  await commitPaths(publisher, { q: {} }, { keys });
  await refresh(reader, { list: true });
  expect(shownHash()).toBe(hashOf(BUILDS.old ?? {}));
});

test("of a root layer with several lines for a path the path is counted once, in a large layer and in a small one", async () => {
  const store = new MemoryStore();
  using publisher = party(store);
  const others = Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`other-${i}`, {}]));
  await commitPaths(publisher, others);
  await fold(publisher);
  await commitPaths(publisher, { p: { ...BUILDS.old } });
  await commitPaths(publisher, { p: { ...BUILDS.new } });
  await fold(publisher);
  using reader = party(store);
  await refresh(reader, { list: true });
  const { view } = reader.database;
  expect(view.layers()).toHaveLength(2);
  expect(view.linesOf(P)).toHaveLength(2);
  expect(view.count()).toBe(301);
});

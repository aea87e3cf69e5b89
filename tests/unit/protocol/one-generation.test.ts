import { expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { IndexDamaged } from "../../../src/cache/database.ts";
import { endGenerations } from "../../../src/protocol/end.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { loadGeneration } from "../../../src/protocol/one-generation.ts";
import { DAY } from "../../support/gc-stretch.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitNames, commitPaths, party, type TestParty, viewOf } from "../../support/protocol.ts";
import { indexLayer } from "../../support/segments.ts";

const NAMES = ["a", "b", "c"];

const generations = ({ database }: TestParty) => database.view.generations().map(({ name }) => name);

test("is read once, and stays what it was whatever is published and collected", async () => {
  const store = new MemoryStore();
  using publisher = party(store);
  using server = party(store);
  await commitNames(publisher, ["a"]);
  const name = await commitNames(publisher, ["a", "b"], { source: "wanted" });
  await commitNames(publisher, ["c"]);
  await fold(publisher);
  await loadGeneration(server, name);
  expect([viewOf(server, NAMES), generations(server)]).toEqual([["a", "b"], [name]]);
  expect(server.database.view.generations()[0]?.record.source).toBe("wanted");
  publisher.host.time += 2 * DAY;
  await commitNames(publisher, ["a", "c"]);
  await endGenerations(publisher, [name]);

  store.calls.length = 0;
  server.host.time += DAY;
  await loadGeneration(server, name);
  expect(store.calls).toEqual([`statManifest seg-${name}`]);
  expect(server.database.view.state().refreshedAt).toBe(server.host.time);
  expect(viewOf(server, NAMES)).toEqual(["a", "b"]);
  using another = party(store);
  await loadGeneration(another, name);
  expect(viewOf(another, NAMES)).toEqual(["a", "b"]);
});

test("once it is deleted that is an error, and what was read stays", async () => {
  const store = new MemoryStore();
  using publisher = party(store);
  using server = party(store);
  using late = party(store);
  const name = await commitNames(publisher, ["a"]);
  await loadGeneration(server, name);
  await store.deleteManifest(store.tags.get(`seg-${name}`) as never);
  for (const context of [server, late])
    await expect(loadGeneration(context, name)).rejects.toMatchObject({ code: "absent" });
  expect([viewOf(server, NAMES), viewOf(late, NAMES)]).toEqual([["a"], []]);
  expect(late.database.view.state().refreshedAt).toBeUndefined();
});

test("one without any path is loaded", async () => {
  const store = new MemoryStore();
  using context = party(store);
  const name = await commitPaths(context, {});
  using server = party(store);
  await loadGeneration(server, name);
  expect(generations(server)).toEqual([name]);
});

test("damage on the way leaves nothing of it, and the next try is whole", async () => {
  const store = new MemoryStore();
  using publisher = party(store);
  using server = party(store);
  const name = await commitNames(publisher, NAMES);
  const digest = indexLayer(store, name);
  const bytes = store.blobs.get(digest) as Uint8Array;
  store.blobs.set(digest, bytes.slice(0, -1));
  await expect(loadGeneration(server, name)).rejects.toMatchObject({ code: "corrupt" });
  expect(server.database.view.layers()).toEqual([]);
  store.blobs.set(digest, bytes);
  await loadGeneration(server, name);
  expect(viewOf(server, NAMES)).toEqual(NAMES);
});

test("two processes on one index load it one after the other", async () => {
  const store = new MemoryStore();
  using publisher = party(store);
  using server = party(store);
  const name = await commitNames(publisher, ["a"]);
  await Promise.all([loadGeneration(server, name), loadGeneration(server, name)]);
  expect([viewOf(server, NAMES), generations(server)]).toEqual([["a"], [name]]);
});

test("a local index that was damaged is read anew, once", async () => {
  const store = new MemoryStore();
  using publisher = party(store);
  using server = party(store);
  const name = await commitNames(publisher, ["a"]);
  await loadGeneration(server, name);
  const { database } = server;
  const update = database.update.bind(database);
  let isDamaged = true;
  database.update = (change, wait) => {
    if (!isDamaged) return update(change, wait);
    isDamaged = false;
    // As it does when it finds damage.
    rmSync(database.path);
    return Promise.reject(new IndexDamaged(database.path, new Error("damaged")));
  };
  await loadGeneration(server, name);
  expect(viewOf(server, NAMES)).toEqual(["a"]);
  expect(server.warnings.join()).toContain("reading it anew");
});

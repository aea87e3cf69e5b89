/** Listings and attached files in the local index. */
import { Database } from "bun:sqlite";
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Attachments } from "../../../src/cache/attachment.ts";
import { IndexDatabase } from "../../../src/cache/database.ts";
import { type EntryLine, encodeEntry, entryOf } from "../../../src/cache/entry.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { storeHash, testEntry } from "../../support/protocol.ts";

let folder: string;
let database: IndexDatabase;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nixcache-test-"));
  database = IndexDatabase.open(join(folder, "index.sqlite"));
});
afterEach(() => {
  database.close();
  rmSync(folder, { recursive: true, force: true });
});

const part = (name: string) => ({ blob: digestOf(name), size: 50, offset: 0, length: 50 });

function lineWith(name: string, added: number, attached?: Attachments, listing?: string): EntryLine {
  const entry = entryOf(testEntry(name, { added }).line);
  return encodeEntry({ ...entry, attached, ...(listing && { listing: part(listing) }) });
}

const update = (change: Parameters<typeof database.update<void>>[0]) =>
  database.update(change, async () => {
    throw new Error("nobody else writes");
  });

let layers = 0;
async function addLayer(...lines: EntryLine[]): Promise<number> {
  let id = 0;
  await update(async (change) => {
    id = change.addLayer(digestOf(`layer ${++layers}`), 1);
    for (const line of lines) change.addEntry(id, line);
  });
  return id;
}

test("a listing and attached files are found; entries without have none", async () => {
  const log = { part: part("log") };
  await addLayer(lineWith("a", 1, { "log/a.drv": log, "log/b.drv": { text: "b" } }, "ls"), lineWith("b", 1));
  const { view } = database;
  expect(view.listing(storeHash("a"))).toEqual(part("ls"));
  expect(view.attached("log/a.drv")).toEqual(log);
  expect(view.attached("log/b.drv")).toEqual({ text: "b" });
  expect(view.listing(storeHash("b"))).toBeUndefined();
  expect(view.listing(storeHash("c"))).toBeUndefined();
  expect(view.attached("log/c.drv")).toBeUndefined();
});

test("of several lines for a path the one that is shown counts, as for narinfos", async () => {
  await addLayer(lineWith("a", 2, { "log/a.drv": { text: "newer" } }, "newer"));
  await addLayer(lineWith("a", 1, { "log/a.drv": { text: "older" }, "log/old.drv": { text: "x" } }, "older"));
  const { view } = database;
  expect(view.attached("log/a.drv")).toEqual({ text: "newer" });
  expect(view.listing(storeHash("a"))).toEqual(part("newer"));
  expect(view.attached("log/old.drv")).toBeUndefined();
});

test("of several paths that have a file the line that is shown first among all counts", async () => {
  await addLayer(
    lineWith("a", 1, { "log/a.drv": { text: "a" } }),
    lineWith("b", 3, { "log/a.drv": { text: "b" } }),
    lineWith("c", 2, { "log/a.drv": { text: "c" } }),
  );
  expect(database.view.attached("log/a.drv")).toEqual({ text: "b" });
});

test("files leave with their layer", async () => {
  const first = await addLayer(lineWith("a", 2, { "log/a.drv": { text: "newer" } }, "newer"));
  await addLayer(lineWith("a", 1, { "log/a.drv": { text: "older" } }));
  await update(async (change) => change.removeLayers([first], 0));
  expect(database.view.attached("log/a.drv")).toEqual({ text: "older" });
  expect(database.view.listing(storeHash("a"))).toBeUndefined();
  using plain = new Database(database.path, { readonly: true });
  expect(plain.query("SELECT count(*) AS n FROM attached").get()).toEqual({ n: 1 });
});

test("of several paths that have a file, that of a signed one is found, though another was made later", async () => {
  const entry = entryOf(lineWith("signed", 1, { "log/x.drv": { text: "signed" } }));
  const sigs = [`k-1:${Buffer.alloc(64, 1).toString("base64")}`];
  const signed = encodeEntry({ ...entry, info: { ...entry.info, sigs } });
  await addLayer(signed);
  await addLayer(lineWith("later", 9, { "log/x.drv": { text: "later" } }));
  expect(database.view.attached("log/x.drv")).toEqual({ text: "signed" });
});

test("an attached file is found through an index, however many entries there are", () => {
  using plain = new Database(database.path, { readonly: true });
  const plan = plain
    .query<{ detail: string }, []>(
      "EXPLAIN QUERY PLAN SELECT DISTINCT hash FROM attached WHERE path = 'log/x'",
    )
    .all();
  for (const { detail } of plan) expect(detail).toStartWith("SEARCH");
});

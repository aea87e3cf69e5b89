import { expect, test } from "bun:test";
import { type HistoryItem, readHistory } from "../../../src/inspect/history.ts";
import { knownGenerations } from "../../../src/inspect/known.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { DAY, MAIN_LINE } from "../../support/gc-stretch.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitNames, commitPaths, party, type TestParty, testEntry } from "../../support/protocol.ts";
import { indexLayer } from "../../support/segments.ts";

const size = (...names: string[]) => names.reduce((sum, name) => sum + testEntry(name).blob.size, 0);

/** What a generation of these names adds. */
const totals = (...names: string[]) => ({
  paths: names.length,
  narSize: 100 * names.length,
  fileSize: size(...names),
});

async function history(context: TestParty, limit = 100): Promise<HistoryItem[]> {
  const { live } = await knownGenerations(context);
  return readHistory(context, live, limit);
}

/** Generations of two branches; the root covers all but the last two. */
async function publishSome(context: TestParty): Promise<string[]> {
  const next = { ...MAIN_LINE, source: "repo next", branch: "next" };
  const publishes = [
    [MAIN_LINE, ["a", "b"]],
    [next, ["a"]],
    [MAIN_LINE, ["a", "b", "c"]],
    [MAIN_LINE, ["a", "c", "d", "e"]],
    [next, ["a"]],
    [MAIN_LINE, ["a"]],
  ] as const;
  const names: string[] = [];
  for (const [record, paths] of publishes) {
    context.host.time += DAY;
    names.push(await commitNames(context, paths, record));
    if (names.length === 4) await fold(context);
  }
  return names;
}

test("each publish says what it added to the one before it in its line, the newest first", async () => {
  using context = party(new MemoryStore());
  const [first, firstNext, second, third, secondNext, fourth] = await publishSome(context);
  const items = await history(context);
  expect(items.map(({ name, before, added }) => [name, before, added])).toEqual([
    [fourth, third, totals()],
    [secondNext, firstNext, totals()],
    [third, second, totals("d", "e")],
    [second, first, totals("c")],
    [firstNext, undefined, totals("a")],
    [first, undefined, totals("a", "b")],
  ] as never);
});

test("a limit reads what is shown and what that succeeds, each once, and equal ones not at all", async () => {
  const store = new MemoryStore();
  using context = party(store);
  const [first, , second, third, , fourth] = await publishSome(context);
  await knownGenerations(context);
  store.calls.length = 0;
  const items = await history(context, 4);
  expect(items).toHaveLength(4);
  const read = store.calls.filter((call) => call.startsWith("readManifest seg-"));
  expect(read.sort()).toEqual([first, second, third, fourth].map((name) => `readManifest seg-${name}`));
});

test("a NAR that is there already, or twice, takes no room", async () => {
  using context = party(new MemoryStore());
  await commitNames(context, ["a"], MAIN_LINE);
  context.host.time += DAY;
  const twins = { "a-again": { content: "a" }, b: {}, "b-again": { content: "b" } };
  await commitPaths(context, { a: {}, ...twins }, MAIN_LINE);
  const [item] = await history(context, 1);
  expect(item?.added).toEqual({ paths: 3, narSize: 300, fileSize: size("b") });
});

test("what cannot be read is a warning, and its successors are told all the same", async () => {
  const store = new MemoryStore();
  using context = party(store);
  const [first, , second, third] = await publishSome(context);
  await knownGenerations(context);
  store.blobs.delete(indexLayer(store, second as string));
  const items = await history(context);
  const added = new Map(items.map((item) => [item.name, item.added]));
  expect(added.get(second as string)).toBeUndefined();
  expect(added.get(third as string)).toBeUndefined();
  expect(added.get(first as string)).toEqual(totals("a", "b"));
  expect(context.warnings.join("\n")).toContain(`seg-${second} of memory: its index layer`);
});

test("a registry that fails is an error", async () => {
  const store = new MemoryStore();
  using context = party(store);
  await publishSome(context);
  const { live } = await knownGenerations(context);
  store.before = (call) => {
    if (call === "readBlob") throw new Error("the registry is down");
  };
  await expect(readHistory(context, live, 1)).rejects.toThrow("the registry is down");
});

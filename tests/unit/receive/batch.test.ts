/** What goes into a batch: nothing whose references are nowhere, however far away that is. */
import { expect, test } from "bun:test";
import { formatNarInfo } from "../../../src/nar/narinfo.ts";
import { MAX_BATCH_PATHS, planBatch } from "../../../src/receive/batch.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { storeHash } from "../../support/protocol.ts";
import { receiving, uploadedPath } from "../../support/receive.ts";

type Chain = readonly (readonly [name: string, references: readonly string[]])[];

/** A plan for paths that came in this order, past what the receiver would refuse. */
async function plan(chain: Chain, upstream: readonly string[] = []) {
  using server = receiving(new MemoryStore());
  const { journal } = server;
  for (const [name, references] of chain) {
    const path = uploadedPath(name, { references, content: "same" });
    if (journal.file(`nar/${path.file}`) === undefined) await server.put(`nar/${path.file}`, path.bytes);
    const row = { path: `${path.hash}.narinfo`, kind: "narinfo", hash: path.hash, nar: path.file } as const;
    journal.addText(row, formatNarInfo(path.info));
  }
  const had = new Set(upstream.map(storeHash));
  const { entries, waiting } = await planBatch(journal, server.machine.database.view, async (hash) =>
    had.has(hash),
  );
  const nameOf = (path: string) => path.slice("/nix/store/".length + 33);
  return {
    entries: entries.map(({ info }) => nameOf(info.storePath)).sort(),
    waiting: waiting.map(({ path }) => nameOf(path)).sort(),
  };
}

const CHAIN: Chain = [
  ["a", ["gone"]],
  ["b", ["a"]],
  ["c", ["b", "c"]],
  ["d", ["c"]],
  ["other", ["other"]],
  ["else", ["other", "had"]],
];

test.each<[string, (chain: Chain) => Chain]>([
  ["references first", (chain) => chain],
  ["references last", (chain) => [...chain].reverse()],
  ["in between", ([a, b, c, d, ...rest]) => [c, a, d, b, ...rest] as Chain],
])("what needs something that is nowhere waits with all that needs that: %s", async (_, order) => {
  expect(await plan(order(CHAIN), ["had"])).toEqual({
    entries: ["else", "other"],
    waiting: ["a", "b", "c", "d"],
  });
});

test("a circle of references is whole by itself, and waits as a whole", async () => {
  const circle: Chain = [
    ["a", ["b"]],
    ["b", ["c"]],
    ["c", ["a"]],
  ];
  expect(await plan(circle)).toEqual({ entries: ["a", "b", "c"], waiting: [] });
  expect(await plan([...circle, ["c", ["a", "gone"]]])).toEqual({ entries: [], waiting: ["a", "b", "c"] });
});

test("what refers to a path of the next batch waits for that", async () => {
  const many: Chain = Array.from({ length: MAX_BATCH_PATHS }, (_, at) => [
    `p${at}`,
    at === 0 ? ["last"] : at === 1 ? ["p0"] : [],
  ]);
  const { entries, waiting } = await plan([...many, ["last", []]]);
  expect([entries.length, waiting]).toEqual([MAX_BATCH_PATHS - 2, ["p0", "p1"]]);
});

import { expect, test } from "bun:test";
import { walkClosure } from "../../../src/cache/closure.ts";
import { formatNarInfo } from "../../../src/nar/narinfo.ts";
import { storeHash } from "../../support/protocol.ts";

/** Paths by name, with the names of their references. */
function narinfos(graph: Record<string, readonly string[]>): (hash: string) => string | undefined {
  const base = (name: string) => `${storeHash(name)}-${name}`;
  const texts = Object.entries(graph).map(([name, references]) => [
    storeHash(name),
    formatNarInfo({
      storePath: `/nix/store/${base(name)}`,
      url: "nar/x.nar.zst",
      compression: "zstd",
      fileSize: 10,
      narHash: `sha256:${"0".repeat(52)}`,
      narSize: 100,
      references: references.map(base).sort(),
      sigs: [],
    }),
  ]);
  const byHash = new Map(texts as [string, string][]);
  return (hash) => byHash.get(hash);
}

const noPause = async () => {};

test.each<[string, Record<string, readonly string[]>, string[], number]>([
  ["a path alone", { a: [] }, ["a"], 0],
  ["itself, twice over, and a cycle", { a: ["a", "b"], b: ["a"] }, ["a", "b"], 0],
  [
    "what several lead to, once",
    { a: ["b", "c"], b: ["d"], c: ["d"], d: [], e: ["a"] },
    ["a", "b", "c", "d"],
    0,
  ],
  ["what is elsewhere, counted once", { a: ["b", "up"], b: ["up", "stream"] }, ["a", "b"], 2],
])("%s", async (_, graph, names, elsewhere) => {
  const found = await walkClosure(storeHash("a"), narinfos(graph), { limit: 100, pause: noPause });
  expect(found.paths.map(({ name }) => name).sort()).toEqual(names);
  expect(found.paths[0]).toEqual({ hash: storeHash("a"), name: "a", narSize: 100, fileSize: 10 });
  expect([found.elsewhere, found.cut]).toEqual([elsewhere, false]);
});

test("a walk ends at its limit and says so, and pauses on its way", async () => {
  const graph = Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`p${i}`, [`p${i + 1}`]]));
  let pauses = 0;
  const pause = async () => void pauses++;
  const found = await walkClosure(storeHash("p0"), narinfos(graph), { limit: 120, pause });
  expect([found.paths.length, found.cut]).toEqual([120, true]);
  expect(pauses).toBe(4);
  const whole = await walkClosure(storeHash("p0"), narinfos(graph), { limit: 500, pause });
  expect([whole.paths.length, whole.elsewhere, whole.cut]).toEqual([200, 1, false]);
});

test("a path with more references than may be looked at is bounded", async () => {
  const graph = { a: Array.from({ length: 1000 }, (_, i) => `r${i}`) };
  const found = await walkClosure(storeHash("a"), narinfos(graph), { limit: 10, pause: noPause });
  expect([found.paths.length, found.elsewhere, found.cut]).toEqual([1, 9, true]);
});

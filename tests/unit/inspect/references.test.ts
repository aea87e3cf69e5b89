import { expect, test } from "bun:test";
import fc from "fast-check";
import { walkClosure } from "../../../src/cache/closure.ts";
import { References } from "../../../src/inspect/references.ts";
import { storeHash, testEntry } from "../../support/protocol.ts";
import { propertyParameters } from "../../support/seed.ts";

type Graph = Readonly<Record<string, readonly string[]>>;

function finder(graph: Graph): (hash: string) => string | undefined {
  const texts = Object.entries(graph).map(([name, references]) => {
    return [storeHash(name), testEntry(name, { references }).line.narinfo] as const;
  });
  const byHash = new Map(texts);
  return (hash) => byHash.get(hash);
}

const hashes = (...names: string[]) => names.map(storeHash);

/** Circles, paths that refer to themselves, and references that are not there. */
const graphs = fc.dictionary(
  fc.constantFrom(..."abcdefgh"),
  fc.uniqueArray(fc.constantFrom(..."abcdefghxyz")),
);

test("a closure is as large as a walk of its own finds it, whatever was walked before", async () => {
  await fc.assert(
    fc.asyncProperty(graphs, async (graph) => {
      const find = finder(graph);
      const references = new References(find);
      for (const name of Object.keys(graph)) {
        const { paths, elsewhere } = await walkClosure(storeHash(name), find, {
          limit: 100,
          pause: async () => {},
        });
        const sum = (size: (path: (typeof paths)[0]) => number) =>
          paths.reduce((total, path) => total + size(path), 0);
        expect(references.closureSize(storeHash(name))).toEqual({
          paths: paths.length,
          narSize: sum(({ narSize }) => narSize),
          fileSize: sum(({ fileSize }) => fileSize ?? 0),
          elsewhere,
        });
      }
    }),
    propertyParameters(),
  );
});

test("a chain is as short as any, leads along references, and is found where there is one", () => {
  fc.assert(
    fc.property(graphs, fc.uniqueArray(fc.constantFrom(..."abcdefgh")), (graph, roots) => {
      const references = new References(finder(graph));
      const distance = distances(graph, roots);
      for (const name of "abcdefghxyz") {
        const chain = references.shortestChain(roots.map(storeHash), storeHash(name));
        expect(chain?.hashes.length).toBe(distance.get(name));
        if (chain === undefined) continue;
        expect(chain.hashes[0]).toBe(storeHash(roots[chain.root] as string));
        expect(chain.hashes.at(-1)).toBe(storeHash(name));
        for (const [at, hash] of chain.hashes.slice(1).entries()) {
          const from = Object.keys(graph).find((of) => storeHash(of) === chain.hashes[at]) as string;
          expect(hashes(...(graph[from] ?? []))).toContain(hash);
        }
      }
    }),
    propertyParameters(),
  );
});

/** Paths on the way to each name, by looking at all of them again and again. */
function distances(graph: Graph, roots: readonly string[]): Map<string, number> {
  const found = new Map(roots.map((root) => [root, 1]));
  for (let isNew = true; isNew; ) {
    isNew = false;
    for (const [name, references] of Object.entries(graph)) {
      const from = found.get(name);
      for (const reference of from === undefined ? [] : references) {
        if ((found.get(reference) ?? 100) <= (from as number) + 1) continue;
        found.set(reference, (from as number) + 1);
        isNew = true;
      }
    }
  }
  return found;
}

test("what is no narinfo of the cache ends a walk", () => {
  const references = new References(() => undefined);
  expect(references.closureSize("nonsense")).toEqual({ paths: 0, narSize: 0, fileSize: 0, elsewhere: 1 });
  expect(references.shortestChain(["nonsense"], storeHash("a"))).toBeUndefined();
  expect(references.shortestChain([], storeHash("a"))).toBeUndefined();
  expect(references.shortestChain([storeHash("a")], storeHash("a"))).toEqual({
    root: 0,
    hashes: [storeHash("a")],
  });
});

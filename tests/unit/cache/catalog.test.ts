import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { Catalog, type CatalogPath, type Order } from "../../../src/cache/catalog.ts";
import { IndexDatabase } from "../../../src/cache/database.ts";
import type { EntryLine } from "../../../src/cache/entry.ts";
import type { PublishRecord } from "../../../src/cache/record.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { storeHash, TestHost, testEntry, testRecord } from "../../support/protocol.ts";
import { propertyParameters } from "../../support/seed.ts";

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

const noWait = async () => {};
let layers = 0;

function addLayer(lines: readonly EntryLine[], records: Record<string, PublishRecord> = {}): Promise<number> {
  return database.update(async (change) => {
    const id = change.addLayer(digestOf(`layer ${++layers}`), 1);
    for (const line of lines) change.addEntry(id, line);
    change.setGenerations(
      id,
      Object.entries(records).map(([name, record]) => ({ name, record })),
    );
    return id;
  }, noWait);
}

async function catalogOf(names: readonly string[]): Promise<Catalog> {
  await addLayer(names.map((name) => testEntry(name).line));
  const catalog = new Catalog(database);
  await catalog.readNames(noWait);
  return catalog;
}

/** All pages of a search, one after the other. */
async function allPages(catalog: Catalog, text: string, limit: number): Promise<string[]> {
  const names: string[] = [];
  let after: CatalogPath | undefined;
  for (;;) {
    const page = await catalog.search({ text, after, limit }, noWait);
    expect(page.paths.length).toBeLessThanOrEqual(limit);
    names.push(...page.paths.map(({ name }) => name));
    if (!page.hasMore) return names;
    after = page.paths.at(-1);
  }
}

describe("search", () => {
  const NAMES = [
    "firefox-128.0",
    "firefox-115.0-esr",
    "Python3-3.12",
    "python3-numpy-2.0",
    "a_b",
    "axb",
    "x?y",
  ];

  test.each<[string, string[]]>([
    ["", ["Python3-3.12", "a_b", "axb", "firefox-115.0-esr", "firefox-128.0", "python3-numpy-2.0", "x?y"]],
    ["fire", ["firefox-115.0-esr", "firefox-128.0"]],
    ["PYTHON3", ["Python3-3.12", "python3-numpy-2.0"]],
    ["  esr   firefox ", ["firefox-115.0-esr"]],
    ["firefox numpy", []],
    ["_", ["a_b"]],
    ["?", ["x?y"]],
    ["%", []],
    ["\\", []],
    ["' OR 1 --", []],
    [storeHash("axb"), ["axb"]],
    [`/nix/store/${storeHash("axb")}-axb`, ["axb"]],
    [`/nix/store/${storeHash("axb")}-axb/bin/a`, ["axb"]],
    [storeHash("absent"), []],
    ["a a a a a a a a nothing", ["a_b", "axb"]],
  ])("%j", async (text, expected) => {
    using catalog = await catalogOf(NAMES);
    const { paths, matches, hasMore } = await catalog.search({ text, limit: 50 }, noWait);
    expect(paths.map(({ name }) => name)).toEqual(expected);
    expect([matches, hasMore]).toEqual([expected.length, false]);
  });

  test("pages together are what one large page is, whatever the names and the size of a page", async () => {
    const name = fc.stringMatching(/^[a-c][a-c0-2.-]{0,3}$/);
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(name, { maxLength: 30 }),
        fc.integer({ min: 1, max: 7 }),
        async (names, limit) => {
          database.close();
          rmSync(folder, { recursive: true, force: true });
          database = IndexDatabase.open(join(folder, "index.sqlite"));
          using catalog = await catalogOf(names);
          const expected = names.filter((of) => of.includes("a")).sort();
          expect(await allPages(catalog, "a", limit)).toEqual(expected);
        },
      ),
      { ...propertyParameters(), numRuns: 25 },
    );
  });

  test("names in many slices come in order, and each is counted", async () => {
    const names = Array.from({ length: 12_000 }, (_, i) => `n-${(i * 7919) % 12_000}`);
    using catalog = await catalogOf(names);
    let pauses = 0;
    const pause = async () => void pauses++;
    const page = await catalog.search({ text: "n", limit: 3 }, pause);
    expect(page.paths.map(({ name }) => name)).toEqual(["n-0", "n-1", "n-10"]);
    expect(page.matches).toBe(12_000);
    expect(pauses).toBe(3);
  });

  test("one that is stopped ends with its next pause", async () => {
    using catalog = await catalogOf(["a"]);
    const stopped = async () => {
      throw new Error("stopped");
    };
    await expect(catalog.search({ text: "a", limit: 1 }, stopped)).rejects.toThrow("stopped");
  });
});

describe("a list", () => {
  const NAMES = ["c-1", "b-2", "a-3", "B-1"];
  const names = (paths: Iterable<CatalogPath>) => [...paths].map(({ name }) => name);

  test.each<[Order, number | undefined, string[]]>([
    ["name", undefined, ["B-1", "a-3", "b-2", "c-1"]],
    ["name", 2, ["B-1", "a-3"]],
    ["size", undefined, ["B-1", "a-3", "b-2", "c-1"]],
    ["added", undefined, ["c-1", "b-2", "a-3", "B-1"]],
    ["closure", 3, ["c-1", "B-1", "a-3"]],
  ])("by %s, %p at most", async (order, limit, expected) => {
    await addLayer(NAMES.map((name, i) => testEntry(name, { added: 100 - i }).line));
    using catalog = new Catalog(database);
    await catalog.readNames(noWait);
    const sizes = new Map([[storeHash("c-1"), 3]]);
    await catalog.measureClosures("", (hash) => sizes.get(hash) ?? 1, noWait);
    expect(names(catalog.list("", order, limit))).toEqual(expected);
    expect(names(catalog.list("B", order, limit)).sort()).toEqual(["B-1", "b-2"]);
    expect(catalog.totalsOf("B")).toEqual({
      ...catalog.totalsOf("b-2 b"),
      paths: 2,
      narSize: 200,
      fileSize: 2 * testEntry("b-2").blob.size,
    });
    expect(catalog.totalsOf("nothing")).toEqual({ paths: 0, narSize: 0, fileSize: 0 });
  });

  test("closures are measured of what matches alone, in slices", async () => {
    using catalog = await catalogOf(Array.from({ length: 100 }, (_, i) => `${i % 2 ? "odd" : "even"}-${i}`));
    let [measured, pauses] = [0, 0];
    await catalog.measureClosures(
      "odd",
      () => ++measured,
      async () => void pauses++,
    );
    expect([measured, pauses]).toEqual([50, 2]);
    expect([...catalog.list("", "closure")].slice(50).every(({ name }) => name.startsWith("even"))).toBe(
      true,
    );
  });
});

describe("names", () => {
  test("totals and sizes are those of the narinfos", async () => {
    using catalog = await catalogOf(["a", "b"]);
    const fileSize = testEntry("a").blob.size;
    expect(catalog.totals).toEqual({ paths: 2, narSize: 200, fileSize: 2 * fileSize });
    const { paths } = await catalog.search({ text: "", limit: 1 }, noWait);
    expect(paths).toEqual([
      { hash: storeHash("a"), name: "a", narSize: 100, fileSize, added: 1_700_000_000 },
    ]);
  });

  test("of several lines for a path the one that is shown counts, once", async () => {
    const names = Array.from({ length: 450 }, (_, i) => `p-${i}`);
    for (const added of [5, 7, 6]) await addLayer(names.map((name) => testEntry(name, { added }).line));
    using catalog = new Catalog(database);
    let pauses = 0;
    await catalog.readNames(async () => void pauses++);
    expect(catalog.totals?.paths).toBe(450);
    expect(pauses).toBeGreaterThan(6);
    const { paths } = await catalog.search({ text: "", limit: 450 }, noWait);
    expect(new Set(paths.map(({ added }) => added))).toEqual(new Set([7]));
    expect(new Set(paths.map(({ hash }) => hash)).size).toBe(450);
  });

  test("are of one state of the index, whoever changes it meanwhile", async () => {
    const names = Array.from({ length: 500 }, (_, i) => `p-${i}`);
    const layer = await addLayer(names.map((name) => testEntry(name).line));
    using catalog = new Catalog(database);
    let isFirst = true;
    await catalog.readNames(async () => {
      if (isFirst) await database.update(async (change) => change.removeLayers([layer], 0), noWait);
      isFirst = false;
    });
    expect(catalog.totals?.paths).toBe(500);
  });

  test("none in an empty index", async () => {
    using catalog = await catalogOf([]);
    expect(catalog.totals).toEqual({ paths: 0, narSize: 0, fileSize: 0 });
    expect(await catalog.search({ text: "", limit: 5 }, noWait)).toEqual({
      paths: [],
      hasMore: false,
      matches: 0,
    });
  });
});

describe("publishes", () => {
  const name = (i: number) => `20260101t0000${String(i).padStart(2, "0")}z-0123456789abcdef`;
  const record = (more: Partial<PublishRecord> = {}) => testRecord([], new TestHost(), more);

  test("the newest first, page by page, each once", async () => {
    const records = Object.fromEntries(Array.from({ length: 12 }, (_, i) => [name(i), record()]));
    await addLayer([], records);
    await addLayer([], { [name(3)]: record() });
    using catalog = new Catalog(database);
    const found: string[] = [];
    for (let before: string | undefined; ; ) {
      const { publishes, hasMore } = catalog.publishes(5, before);
      found.push(...publishes.map((publish) => publish.name));
      if (!hasMore) break;
      before = found.at(-1);
    }
    expect(found).toEqual(Array.from({ length: 12 }, (_, i) => name(11 - i)));
    expect(catalog.publishCount()).toBe(12);
    expect(catalog.latest()?.name).toBe(name(11));
  });

  test("a page of long records ends early", async () => {
    const roots = Object.fromEntries(
      Array.from({ length: 6_000 }, (_, i) => [
        `packages.${i}`,
        `/nix/store/${storeHash("a")}-${"x".repeat(60)}`,
      ]),
    );
    await addLayer([], {
      [name(1)]: record({ roots }),
      [name(2)]: record({ roots }),
      [name(3)]: record({ roots }),
    });
    using catalog = new Catalog(database);
    const { publishes, hasMore } = catalog.publishes(5);
    expect(publishes.map((publish) => publish.name)).toEqual([name(3)]);
    expect(hasMore).toBe(true);
  });

  test("keys are told once, those of the newest publish first", async () => {
    await addLayer([], {
      [name(1)]: record({ keys: ["old:A", "both:B"] }),
      [name(2)]: record({ keys: ["new:C", "both:B"] }),
    });
    using catalog = new Catalog(database);
    expect(catalog.keys()).toEqual(["both:B", "new:C", "old:A"]);
  });
});

/** A layer's file: each line found and read as it was written, and damage noticed. */

import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  copyFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { IndexDamaged, IndexDatabase } from "../../../src/cache/database.ts";
import { type EntryLine, encodeEntry, entryOf, formatLine, parseLine } from "../../../src/cache/entry.ts";
import { formatLayer } from "../../../src/cache/index-layer.ts";
import { digestHex, digestOf } from "../../../src/oci/digest.ts";
import { storeHash, TestHost, testEntry, testRecord } from "../../support/protocol.ts";
import { propertyParameters } from "../../support/seed.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nixcache-test-"));
  path = join(folder, "index.sqlite");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const noWait = async () => {};
const DIGEST = digestOf("the layer");
const fileOf = (digest = DIGEST) => join(`${path}-layers`, digestHex(digest));

/** By its text, as from a cache. */
async function addText(database: IndexDatabase, lines: readonly string[], digest = DIGEST): Promise<number> {
  const header = { kind: "segment", record: testRecord([], new TestHost()) } as const;
  const text = [...formatLayer(header, []), ...lines].map((line) => `${line}\n`).join("");
  return database.update(async (change) => {
    const id = change.addLayer(digest, 1);
    expect((await change.addText(id, chunks(text), "test")).header).toEqual(header);
    return id;
  }, noWait);
}

async function* chunks(text: string): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += 1000) yield Uint8Array.from(bytes.subarray(at, at + 1000));
}

const lines = (count: number) => Array.from({ length: count }, (_, i) => testEntry(`p-${i}`).line);
const byHash = (a: EntryLine, b: EntryLine) => (a.storeHash < b.storeHash ? -1 : 1);

/** Changes bytes of a file that may be open. */
function damage(file: string, from: number, to: number): void {
  const bytes = readFileSync(file);
  bytes.fill(0, from, to);
  writeFileSync(file, bytes);
}

describe("a layer", () => {
  test("has its lines, whether it came as text or line by line, sorted or not", async () => {
    const name = fc.stringMatching(/^[a-z]{1,3}$/);
    await fc.assert(
      fc.asyncProperty(
        fc.array(name, { maxLength: 30 }),
        fc.boolean(),
        fc.boolean(),
        async (names, asText, isSorted) => {
          rmSync(folder, { recursive: true, force: true });
          using database = IndexDatabase.open(path);
          // The same path may come twice, and then the last one counts.
          const all = names.map((of, added) => testEntry(of, { added }).line);
          const given = isSorted ? all.toSorted(byHash) : all;
          if (asText) await addText(database, given.map(formatLine));
          else
            await database.update(async (change) => {
              const id = change.addLayer(DIGEST, 1);
              for (const line of given) change.addEntry(id, line);
            }, noWait);
          const expected = new Map(given.map((line) => [line.storeHash, line]));
          const sorted = [...expected.values()].sort(byHash);
          const look = (view: typeof database.view) => {
            expect(view.count()).toBe(expected.size);
            expect(view.hashesFrom("", 1000)).toEqual(sorted.map((line) => line.storeHash));
            for (const line of sorted) {
              expect(view.line(line.storeHash)).toEqual(line);
              // The first look-up checks the line, the second one takes it from between its quotes.
              expect(view.narinfo(line.storeHash)).toBe(line.narinfo);
              expect(view.narinfo(line.storeHash)).toBe(line.narinfo);
              expect(view.nar(line.file)?.narinfo).toBe(line.narinfo);
            }
          };
          look(database.view);
          using other = IndexDatabase.open(path);
          look(other.view);
        },
      ),
      { ...propertyParameters(), numRuns: 40 },
    );
  });

  test("is asked from any hash on", async () => {
    using database = IndexDatabase.open(path);
    const all = lines(50).sort(byHash);
    await addText(database, all.filter((_, i) => i % 2 === 0).map(formatLine));
    await addText(database, all.filter((_, i) => i % 3 === 0).map(formatLine), digestOf("another"));
    const hashes = all.flatMap(({ storeHash }, i) => (i % 2 === 0 || i % 3 === 0 ? [storeHash] : []));
    for (const from of ["", "zzzz", ...all.map(({ storeHash }) => storeHash)]) {
      expect(database.view.hashesFrom(from, 5)).toEqual(hashes.filter((hash) => hash >= from).slice(0, 5));
    }
    expect(database.view.count()).toBe(hashes.length);
  });

  test.each([
    ["a letter escaped", (text: string) => text.replace("Compression", "Compr\\u0065ssion")],
    ["a space before it", (text: string) => ` ${text}`],
    ["a field of a later version, not in ASCII", (text: string) => text.replace(/\}$/, ',"later":"Grüße"}')],
  ])("serves a line with %s as what it means", async (_, change) => {
    using database = IndexDatabase.open(path);
    const { line } = testEntry("a");
    const text = change(formatLine(line));
    await addText(database, [text]);
    const { view } = database;
    for (let times = 0; times < 3; times++) expect(view.narinfo(line.storeHash)).toBe(line.narinfo);
    expect(view.line(line.storeHash)).toEqual(parseLine(text, "test"));
    expect(view.nar(line.file)?.narinfo).toBe(line.narinfo);
  });

  test("finds the path of a derivation", async () => {
    using database = IndexDatabase.open(path);
    const deriver = `${storeHash("drv")}-a.drv`;
    const entry = entryOf(testEntry("a").line);
    const line = encodeEntry({ ...entry, info: { ...entry.info, deriver } });
    await addText(database, [...lines(3000), line, ...lines(10)].map(formatLine));
    expect(database.view.ofDeriver(deriver)).toBe(line.storeHash);
    expect(database.view.ofDeriver(`${storeHash("drv")}-b.drv`)).toBeUndefined();
  });

  test("with a broken line of the usual shape is read; that line counts as none", async () => {
    using database = IndexDatabase.open(path);
    const [good, bad] = [testEntry("good").line, testEntry("bad").line];
    await addText(
      database,
      [good, bad]
        .map(formatLine)
        .map((text, i) => (i === 1 ? text.replace("NarSize: 100", "NarSize: x") : text)),
    );
    const { view } = database;
    expect(view.narinfo(good.storeHash)).toBe(good.narinfo);
    for (let times = 0; times < 2; times++) expect(view.narinfo(bad.storeHash)).toBeUndefined();
    expect([view.line(bad.storeHash), view.nar(bad.file)]).toEqual([undefined, undefined]);
    expect(view.layersWithoutEntries()).toHaveLength(1);
    // It is what the cache has, and reading it again would not mend it.
    await database.update(async (change) => change.removeLayers(view.layersOf(good.storeHash), 5), noWait);
    expect([good, bad].map(({ storeHash }) => database.view.leftAt(storeHash))).toEqual([5, undefined]);
  });
});

describe("a file", () => {
  test("that changed under a server is noticed at a look-up, and read anew with the next update", async () => {
    using database = IndexDatabase.open(path);
    const all = lines(200);
    await addText(database, all.map(formatLine));
    const { view } = database;
    const size = readFileSync(fileOf()).length;
    damage(fileOf(), 20_000, 60_000);
    expect(readFileSync(fileOf()).length).toBe(size);
    const outcomes = all.map(({ storeHash, narinfo }) => {
      try {
        const found = view.narinfo(storeHash);
        // A line of which only a part has changed may seem to be one that was never right.
        return found === undefined ? "none" : found === narinfo ? "found" : "wrong";
      } catch (error) {
        return String(error).includes("is not as it was written") ? "damaged" : String(error);
      }
    });
    expect(new Set(outcomes).difference(new Set(["none", "found", "damaged"]))).toEqual(new Set());
    expect(outcomes.filter((outcome) => outcome === "none").length).toBeLessThan(3);
    expect(outcomes).toContain("damaged");
    expect(outcomes).toContain("found");
    await expect(addText(database, [], digestOf("more"))).rejects.toBeInstanceOf(IndexDamaged);
    await addText(database, all.map(formatLine));
    for (const { storeHash, narinfo } of all) expect(database.view.narinfo(storeHash)).toBe(narinfo);
  });

  test("that was cut off under a server is noticed", async () => {
    using database = IndexDatabase.open(path);
    const all = lines(200);
    await addText(database, all.map(formatLine));
    truncateSync(fileOf(), 30_000);
    await expect(addText(database, [], digestOf("more"))).rejects.toBeInstanceOf(IndexDamaged);
  });

  test.each<[string, (file: string) => void]>([
    ["is cut off", (file) => truncateSync(file, 1000)],
    ["is empty", (file) => truncateSync(file, 0)],
    ["is gone", (file) => rmSync(file)],
    [
      "has another table",
      (file) => damage(file, readFileSync(file).length - 200, readFileSync(file).length - 100),
    ],
  ])("that %s is no index: all of it is thrown away", async (_, change) => {
    {
      using database = IndexDatabase.open(path);
      await addText(database, lines(50).map(formatLine));
    }
    change(fileOf());
    using database = IndexDatabase.open(path);
    expect([database.view.count(), database.view.layers().length]).toEqual([0, 0]);
    expect(database.view.state()).toEqual({});
    await addText(database, lines(50).map(formatLine));
    expect(database.view.count()).toBe(50);
  });

  test("is removed with its layer by the next update; views that have it open keep it", async () => {
    using database = IndexDatabase.open(path);
    const { line } = testEntry("a");
    const id = await addText(database, [formatLine(line)]);
    await database.snapshot(async (view) => {
      await database.update(async (change) => change.removeLayers([id], 0), noWait);
      await database.update(async () => {}, noWait);
      expect(readdirSync(`${path}-layers`)).toEqual([]);
      expect(view.narinfo(line.storeHash)).toBe(line.narinfo);
    });
    expect(database.view.narinfo(line.storeHash)).toBeUndefined();
  });

  test("left by one that died while it wrote is removed by the next update", async () => {
    using database = IndexDatabase.open(path);
    await addText(database, lines(1).map(formatLine));
    copyFileSync(fileOf(), `${fileOf(digestOf("x"))}.part`);
    copyFileSync(fileOf(), fileOf(digestOf("y")));
    await database.update(async () => {}, noWait);
    expect(readdirSync(`${path}-layers`)).toEqual([digestHex(DIGEST)]);
  });

  test("of an update that failed is removed", async () => {
    using database = IndexDatabase.open(path);
    const cut = database.update(async (change) => {
      await change.addText(change.addLayer(DIGEST, 1), chunks("nonsense"), "test");
    }, noWait);
    await expect(cut).rejects.toThrow("in the middle of line 1");
    expect(readdirSync(`${path}-layers`)).toEqual([]);
  });
});

describe("other processes", () => {
  test("see an update at once", async () => {
    using database = IndexDatabase.open(path);
    using other = IndexDatabase.open(path);
    const { line } = testEntry("a");
    expect(other.view.narinfo(line.storeHash)).toBeUndefined();
    const id = await addText(database, [formatLine(line)]);
    await new Promise((resolve) => setImmediate(resolve));
    expect(other.view.narinfo(line.storeHash)).toBe(line.narinfo);
    await database.update(async (change) => change.removeLayers([id], 0), noWait);
    await new Promise((resolve) => setImmediate(resolve));
    expect(other.view.narinfo(line.storeHash)).toBeUndefined();
  });

  const sessions = () => {
    using plain = new Database(path);
    return plain.query("SELECT session FROM layer").all();
  };

  test("do not trust what an earlier run of the machine may not have forced to disk", async () => {
    const database = IndexDatabase.open(path);
    await addText(database, lines(1).map(formatLine));
    expect(sessions()).not.toEqual([{ session: null }]);
    {
      // Written in this run, so it can be read.
      using other = IndexDatabase.open(path);
      expect(other.view.count()).toBe(1);
    }
    {
      using plain = new Database(path);
      plain.run("UPDATE layer SET session = 'before the power cut'");
    }
    using after = IndexDatabase.open(path);
    expect(after.view.count()).toBe(0);
    database.close();
  });

  test("may trust what was closed, and what has settled", async () => {
    {
      using database = IndexDatabase.open(path);
      await addText(database, lines(1).map(formatLine));
    }
    expect(sessions()).toEqual([{ session: null }]);
    using database = IndexDatabase.open(path);
    await addText(database, lines(2).map(formatLine), digestOf("more"));
    while (sessions().length !== 2 || JSON.stringify(sessions()).includes('":"')) await Bun.sleep(10);
    expect(database.view.count()).toBe(2);
  });
});

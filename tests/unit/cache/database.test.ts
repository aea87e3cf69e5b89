import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import * as fs from "node:fs";
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { IndexDamaged, IndexDatabase } from "../../../src/cache/database.ts";
import type { EntryLine } from "../../../src/cache/entry.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { storeHash, TestHost, testEntry, testRecord } from "../../support/protocol.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nixcache-test-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const noWait = async () => {
  throw new Error("nobody else writes");
};

async function addLayer(database: IndexDatabase, name: string, lines: readonly EntryLine[]): Promise<number> {
  return database.update(async (change) => {
    const id = change.addLayer(digestOf(name), 1);
    for (const line of lines) change.addEntry(id, line);
    return id;
  }, noWait);
}

test("an update that fails leaves the view as it was", async () => {
  using database = IndexDatabase.open(join(folder, "a", "index.sqlite"));
  await addLayer(database, "one", [testEntry("a").line]);
  const failing = database.update(async (change) => {
    change.addEntry(change.addLayer(digestOf("two"), 1), testEntry("b").line);
    throw new Error("lost the registry");
  }, noWait);
  await expect(failing).rejects.toThrow("lost the registry");
  expect(database.view.narinfo(storeHash("a"))).toBeDefined();
  expect(database.view.narinfo(storeHash("b"))).toBeUndefined();
});

test("look-ups go on during an update, and see it whole or not at all", async () => {
  using database = IndexDatabase.open(join(folder, "index.sqlite"));
  await database.update(async (change) => {
    const id = change.addLayer(digestOf("one"), 1);
    change.addEntry(id, testEntry("a").line);
    expect(database.view.narinfo(storeHash("a"))).toBeUndefined();
  }, noWait);
  expect(database.view.narinfo(storeHash("a"))).toBeDefined();
});

test("a second writer waits its turn", async () => {
  using database = IndexDatabase.open(join(folder, "index.sqlite"));
  using other = IndexDatabase.open(join(folder, "index.sqlite"));
  const order: string[] = [];
  let waits = 0;
  let second: Promise<void> = Promise.resolve();
  await database.update(async () => {
    const asked = Promise.withResolvers<void>();
    second = other.update(
      async () => {
        order.push("second");
      },
      async () => {
        waits++;
        asked.resolve();
        await new Promise((resolve) => setImmediate(resolve));
      },
    );
    await asked.promise;
    order.push("first");
  }, noWait);
  await second;
  expect(order).toEqual(["first", "second"]);
  expect(waits).toBeGreaterThan(0);
});

test("of what has left it is known when, for each path of a NAR; what stays in another layer has not left", async () => {
  using database = IndexDatabase.open(join(folder, "index.sqlite"));
  const [a, twin] = [testEntry("a").line, testEntry("twin", { content: "a" }).line];
  const first = await addLayer(database, "one", [a, twin]);
  const second = await addLayer(database, "two", [a]);
  expect(database.view.layersOf(a.storeHash)).toEqual([first, second]);
  await database.update(async (change) => change.removeLayers([first], 1000), noWait);
  expect([a, twin].map(({ storeHash }) => database.view.leftAt(storeHash))).toEqual([undefined, 1000]);
  expect(database.view.layersOf(a.storeHash)).toEqual([second]);
  await database.update(async (change) => change.removeLayers([second], 2000), noWait);
  expect([a, twin].map(({ storeHash }) => database.view.leftAt(storeHash))).toEqual([2000, 1000]);
  expect(database.view.nar(a.file)?.parts).toHaveLength(1);
  await database.update(async (change) => change.removeLayers([], 1001 + 35 * 86_400_000), noWait);
  expect([a, twin].map(({ storeHash }) => database.view.leftAt(storeHash))).toEqual([2000, undefined]);
});

test("a snapshot stays the same whatever is written meanwhile", async () => {
  using database = IndexDatabase.open(join(folder, "index.sqlite"));
  const layer = await addLayer(database, "one", [testEntry("a").line]);
  await database.snapshot(async (view) => {
    expect(view.layers()).toHaveLength(1);
    await database.update(async (change) => change.removeLayers([layer], 0), noWait);
    expect([...view.linesAbove([layer], [])]).toEqual([testEntry("a").line]);
  });
  expect(database.view.layers()).toHaveLength(0);
});

test("of several lines for a path the one made last is shown, in whatever order they came", async () => {
  const old = testEntry("a", { added: 1 }).line;
  const sig = `k:${Buffer.alloc(64).toString("base64")}`;
  const newer = testEntry("a", { added: 2, sigs: [sig] }).line;
  for (const order of [
    [old, newer],
    [newer, old],
  ]) {
    using database = IndexDatabase.open(join(folder, `${order.indexOf(old)}.sqlite`));
    for (const [i, line] of order.entries()) await addLayer(database, `layer ${i}`, [line]);
    expect(database.view.narinfo(storeHash("a"))).toBe(newer.narinfo);
    expect(database.view.line(storeHash("a"))).toEqual(newer);
    expect(database.view.count()).toBe(1);
  }
});

test("a file that is no database, or a damaged or older one, is thrown away", async () => {
  const path = join(folder, "index.sqlite");
  writeFileSync(
    path,
    "this is not SQLite, whatever its name says, and long enough to be read as a header".repeat(20),
  );
  {
    using database = IndexDatabase.open(path);
    expect(database.view.count()).toBe(0);
    await addLayer(
      database,
      "one",
      Array.from({ length: 2000 }, (_, i) => testEntry(`p-${i}`).line),
    );
  }
  truncateSync(path, 5000);
  {
    using database = IndexDatabase.open(path);
    expect(database.view.count()).toBe(0);
    await database.update(async () => {}, noWait);
  }
});

test("a file of an older version is emptied, and what it took is given back", async () => {
  const path = join(folder, "index.sqlite");
  {
    using older = new Database(path, { create: true });
    older.run("PRAGMA journal_mode = WAL");
    older.run("CREATE TABLE entry (id INTEGER PRIMARY KEY, hash TEXT, narinfo TEXT)");
    older.run("CREATE TABLE layer (id INTEGER PRIMARY KEY, digest TEXT)");
    const insert = older.query("INSERT INTO entry (hash, narinfo) VALUES (?, ?)");
    older.transaction(() => {
      for (let i = 0; i < 2000; i++) insert.run(storeHash(`p-${i}`), "x".repeat(900));
    })();
    older.run("PRAGMA user_version = 6");
  }
  const before = statSync(path).size;
  {
    using database = IndexDatabase.open(path);
    expect([database.view.count(), database.view.layers().length]).toEqual([0, 0]);
    await addLayer(database, "one", [testEntry("a").line]);
    expect(database.view.narinfo(storeHash("a"))).toBeDefined();
  }
  expect(statSync(path).size).toBeLessThan(before / 4);
});

test.each([
  ["names of generations had capitals", 7],
  ["layers had no signatures", 8],
])("a file of the version whose %s is taken over", async (_, version) => {
  const path = join(folder, "index.sqlite");
  const name = "20261123t175346z-0123456789abcdef";
  const record = testRecord([], new TestHost());
  {
    using database = IndexDatabase.open(path);
    await database.update(async (change) => {
      const layer = change.addLayer(digestOf("one"), 1);
      change.addEntry(layer, testEntry("a").line);
      change.setGenerations(layer, [{ name, record }]);
    }, noWait);
  }
  {
    using earlier = new Database(path);
    if (version === 7) earlier.run("UPDATE generation SET name = replace(replace(name, 't', 'T'), 'z', 'Z')");
    earlier.run("ALTER TABLE layer DROP COLUMN signatures");
    earlier.run(`PRAGMA user_version = ${version}`);
  }
  for (let opening = 1; opening <= 2; opening++) {
    using database = IndexDatabase.open(path);
    expect(database.view.narinfo(storeHash("a"))).toBeDefined();
    expect(database.view.generations()).toEqual([{ name, record }]);
    expect(database.view.layers().map(({ signatures }) => signatures)).toEqual([null]);
  }
});

/** How often this process has read from a file so far. */
function readCalls(): number {
  return Number(/^syscr: (\d+)$/m.exec(readFileSync("/proc/self/io", "utf8"))?.[1]);
}

test("defect 11: a look-up reads one line, however many there are, and nothing for what is absent", async () => {
  using database = IndexDatabase.open(join(folder, "index.sqlite"));
  const lines = Array.from({ length: 5000 }, (_, i) => testEntry(`p-${i}`).line);
  await addLayer(database, "one", lines);
  const { view } = database;
  const reads = (look: () => void): number => {
    const before = readCalls();
    look();
    return readCalls() - before;
  };
  const some = lines.slice(0, 500);
  const lookUp = () => {
    for (const { storeHash, narinfo } of some) expect(view.narinfo(storeHash)).toBe(narinfo);
  };
  // The first look-up checks the line, later ones take it as it is.
  const [hits, again] = [reads(lookUp), reads(lookUp)];
  const nars = reads(() => {
    for (const { file } of some) expect(view.nar(file)?.parts).toHaveLength(1);
  });
  const misses = reads(() => {
    for (let i = 0; i < 500; i++) expect(view.narinfo(storeHash(`absent ${i}`))).toBeUndefined();
  });
  // Other threads read a little, too.
  expect(hits).toBeWithin(500, 600);
  expect(again).toBeWithin(500, 600);
  expect(nars).toBeWithin(500, 600);
  expect(misses).toBeLessThan(100);
});

test("a file that is damaged or removed while it is open is replaced", async () => {
  const path = join(folder, "index.sqlite");
  using database = IndexDatabase.open(path);
  const lines = Array.from({ length: 500 }, (_, i) => testEntry(`p-${i}`).line);
  await addLayer(database, "one", lines);
  rmSync(path);
  await addLayer(database, "two", [testEntry("a").line]);
  expect(database.view.count()).toBe(1);
  await addLayer(database, "three", lines);
  {
    // Everything into the file itself, so that damage to it is seen.
    using other = new Database(path);
    other.run("PRAGMA wal_checkpoint(TRUNCATE)");
  }
  const bytes = readFileSync(path);
  bytes.fill(0x5a, 4096);
  writeFileSync(path, bytes);
  const damaged = addLayer(database, "four", lines);
  await expect(damaged).rejects.toBeInstanceOf(IndexDamaged);
  await addLayer(database, "five", [testEntry("b").line]);
  expect(database.view.count()).toBe(1);
  expect(database.view.narinfo(storeHash("b"))).toBeDefined();
});

test("a folder that cannot be made is an error that says what to set", () => {
  writeFileSync(join(folder, "file"), "");
  expect(() => IndexDatabase.open(join(folder, "file", "index.sqlite"))).toThrow(
    /cannot use the local index .*file/,
  );
  expect(existsSync(join(folder, "file", "index.sqlite"))).toBe(false);
});

describe("a layer that cannot be forced to disk", () => {
  const failed = () => Object.assign(new Error("EIO: i/o error, fdatasync"), { code: "EIO" });
  const path = () => join(folder, "index.sqlite");

  test("while the index is open: the next update says so, and it is read anew", async () => {
    let due = () => {};
    using _ = spyOn(globalThis, "setTimeout").mockImplementation(((call: () => void) => {
      due = call;
      return { unref: () => undefined };
    }) as never);
    const attempt = Promise.withResolvers<void>();
    using __ = spyOn(fs, "fdatasync").mockImplementation(((_fd: number, done: (error: Error) => void) => {
      done(failed());
      setImmediate(attempt.resolve);
    }) as never);
    using database = IndexDatabase.open(path());
    await addLayer(database, "one", [testEntry("a").line]);
    due();
    await attempt.promise;
    // What was read is answered on.
    expect(database.view.narinfo(storeHash("a"))).toBeDefined();
    await expect(addLayer(database, "two", [])).rejects.toBeInstanceOf(IndexDamaged);
    await addLayer(database, "one", [testEntry("a").line]);
    expect(database.view.narinfo(storeHash("a"))).toBeDefined();
  });

  test("when the index is closed: the next process does not take it over", async () => {
    using _ = spyOn(fs, "fdatasyncSync").mockImplementation(() => {
      throw failed();
    });
    const database = IndexDatabase.open(path());
    await addLayer(database, "one", [testEntry("a").line]);
    database.close();
    using next = IndexDatabase.open(path());
    expect(next.view.count()).toBe(0);
    expect(next.view.layers()).toEqual([]);
  });
});

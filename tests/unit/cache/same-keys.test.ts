/**
 * Names that differ and have the same key: a look-up finds the one that was asked for, or nothing. Keys are 50 bits of a
 * store hash and 32 bits of a NAR's file name, so whoever may name files can make two with the same one.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { IndexDatabase } from "../../../src/cache/database.ts";
import { type EntryLine, encodeEntry, entryOf } from "../../../src/cache/entry.ts";
import { fileKey, hashKey } from "../../../src/cache/layer-table.ts";
import { encodeBase32 } from "../../../src/nar/base32.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { testEntry } from "../../support/protocol.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nixcache-test-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const noWait = async () => {
  throw new Error("nobody else writes");
};

/** A layer for each list of lines, in their order. */
async function indexOf(...layers: (readonly EntryLine[])[]) {
  const database = IndexDatabase.open(join(folder, `${crypto.randomUUID()}.sqlite`));
  const ids = await database.update(async (change) => {
    return layers.map((lines, at) => {
      const id = change.addLayer(digestOf(`layer ${at}`), 1);
      for (const line of lines) change.addEntry(id, line);
      return id;
    });
  }, noWait);
  return { database, ids };
}

/** Names of NAR files of the usual shape, of which two have the same key. */
function sameFileKey(): readonly [string, string] {
  const seen = new Map<number, string>();
  for (let i = 0; ; i++) {
    const hash = new Bun.CryptoHasher("sha256").update(`file ${i}`).digest();
    const name = `${encodeBase32(hash)}.nar.zst`;
    const other = seen.get(fileKey(name));
    if (other !== undefined) return [other, name];
    seen.set(fileKey(name), name);
  }
}

const FILES = sameFileKey();

/** An entry whose NAR has this file name. */
function lineWith(name: string, file: string): EntryLine {
  const entry = entryOf(testEntry(name).line);
  const { fileHash: _, ...info } = entry.info;
  return encodeEntry({ ...entry, info: { ...info, url: `nar/${file}` } });
}

const blobOf = (line: EntryLine) => entryOf(line).parts[0]?.blob;

describe("two NARs whose file names have the same key", () => {
  const [a, b] = [lineWith("a", FILES[0]), lineWith("b", FILES[1])];

  test("the names are two", () => {
    expect(FILES[0]).not.toBe(FILES[1]);
    expect(fileKey(FILES[0])).toBe(fileKey(FILES[1]));
  });

  test.each([
    ["one layer", [[a, b]]],
    ["one layer, the other way round", [[b, a]]],
    ["two layers", [[a], [b]]],
    ["two layers, the other way round", [[b], [a]]],
  ])("are each found by its own name, in %s", async (_, layers) => {
    const { database } = await indexOf(...layers);
    using _open = database;
    for (const line of [a, b])
      expect(database.view.nar(line.file)).toEqual({ parts: entryOf(line).parts, narinfo: line.narinfo });
  });

  test("of which the cache has one: the other is absent, never that one's bytes", async () => {
    for (const [has, lacks] of [
      [a, b],
      [b, a],
    ] as const) {
      const { database } = await indexOf([has]);
      using _open = database;
      expect(database.view.nar(lacks.file)).toBeUndefined();
      expect(database.view.nar(has.file)?.parts[0]?.blob).toBe(blobOf(has));
    }
  });

  test("that have left are each found by its own name, and one that has stayed is not the other", async () => {
    const { database, ids } = await indexOf([a], [b]);
    using _open = database;
    await database.update(async (change) => change.removeLayers([ids[0] as number], 1000), noWait);
    expect(database.view.nar(a.file)).toEqual({ parts: entryOf(a).parts });
    expect(database.view.nar(b.file)?.narinfo).toBe(b.narinfo);
    await database.update(async (change) => change.removeLayers([ids[1] as number], 1000), noWait);
    for (const line of [a, b]) expect(database.view.nar(line.file)).toEqual({ parts: entryOf(line).parts });
  });

  test("whether another layer has this very NAR is asked by its name", async () => {
    const same = lineWith("a", FILES[1]);
    const { database, ids } = await indexOf([a], [same]);
    using _open = database;
    const [first = 0] = ids;
    expect(database.view.isElsewhere(first, a.storeHash, FILES[1])).toBe(true);
    expect(database.view.isElsewhere(first, a.storeHash, FILES[0])).toBe(false);
  });
});

describe("two store hashes that have the same key", () => {
  const base = testEntry("a").line;
  const last = base.storeHash.endsWith("0") ? "1" : "0";
  const twinHash = base.storeHash.slice(0, -1) + last;
  const entry = entryOf(base);
  const twin = encodeEntry({
    ...entry,
    info: { ...entry.info, storePath: `/nix/store/${twinHash}-twin`, narSize: 77 },
  });

  test("the hashes are two", () => {
    expect(hashKey(twin.storeHash)).toBe(hashKey(base.storeHash));
    expect(twin.storeHash).not.toBe(base.storeHash);
  });

  test.each([
    ["one layer", [[base, twin]]],
    ["one layer, the other way round", [[twin, base]]],
    ["two layers", [[base], [twin]]],
    ["several layers, of which two have the same", [[base], [twin, base], [twin]]],
  ])("are each found by its own, in %s", async (_, layers) => {
    const { database } = await indexOf(...layers);
    using _open = database;
    const { view } = database;
    expect(view.count()).toBe(2);
    expect(view.hashesFrom("", 10)).toEqual([base.storeHash, twin.storeHash].sort());
    for (const line of [base, twin]) {
      expect(view.line(line.storeHash)).toEqual(line);
      // The second time it is not parsed.
      for (let times = 0; times < 2; times++) expect(view.narinfo(line.storeHash)).toBe(line.narinfo);
    }
  });

  test("of which the cache has one: the other is absent", async () => {
    for (const [has, lacks] of [
      [base, twin],
      [twin, base],
    ] as const) {
      const { database, ids } = await indexOf([has]);
      using _open = database;
      const { view } = database;
      for (let times = 0; times < 2; times++) {
        expect(view.narinfo(lacks.storeHash)).toBeUndefined();
        expect(view.narinfo(has.storeHash)).toBe(has.narinfo);
      }
      expect(view.line(lacks.storeHash)).toBeUndefined();
      expect(view.layersOf(lacks.storeHash)).toEqual([]);
      expect(view.isElsewhere(-1, lacks.storeHash)).toBe(false);
      expect(view.listing(lacks.storeHash)).toBeUndefined();
      expect([...view.linesAbove(ids, [])]).toEqual([has]);
    }
  });

  test("of which the layers below have one: the other one is folded, alone", async () => {
    const { database, ids } = await indexOf([base], [base, twin]);
    using _open = database;
    const [below = 0, above = 0] = ids;
    expect([...database.view.linesAbove([above], [below])]).toEqual([twin]);
  });
});

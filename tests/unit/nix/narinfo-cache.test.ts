/** Files that Nix keeps of binary caches; `e2e/remembered.test.ts` reads those of the real one. */
import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isSameCache, readNarInfoMemory } from "../../../src/nix/narinfo-cache.ts";
import { nixCacheFolder } from "../../../src/nix/user.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nixcache-test-narinfos-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const URL = "http://127.0.0.1:37515";
const hash = (letter: string) => letter.repeat(32);

/** With the tables as Nix 2.8 makes them. */
function write(
  name: string,
  caches: Record<string, [hash: string, present: number, sigs: string, at: number][]>,
) {
  const db = new Database(join(folder, name), { create: true });
  db.run("CREATE TABLE BinaryCaches (id integer primary key, url text unique not null, timestamp integer)");
  db.run(
    "CREATE TABLE NARs (cache integer, hashPart text, namePart text, sigs text, timestamp integer, present integer)",
  );
  for (const [index, [url, rows]] of Object.entries(caches).entries()) {
    db.run("INSERT INTO BinaryCaches VALUES (?, ?, 0)", [index, url]);
    for (const [hashPart, present, sigs, at] of rows) {
      db.run("INSERT INTO NARs VALUES (?, ?, 'x', ?, ?, ?)", [index, hashPart, sigs, at, present]);
    }
  }
  db.close();
}

const read = (since = { found: 0, missed: 0 }) => {
  const memory = readNarInfoMemory(folder, URL, since);
  return memory.kind === "read" ? memory.paths : memory.kind;
};

test("is read of one cache, newest first, and nothing that counts no more", () => {
  write("binary-cache-v6.sqlite", {
    [URL]: [
      [hash("a"), 1, "k-1:x  other-2:y", 1000],
      [hash("b"), 0, "", 2000],
      [hash("c"), 1, "", 500],
    ],
    "http://127.0.0.1:3751": [[hash("d"), 1, "", 5000]],
  });
  const a = { storeHash: hash("a"), present: true, sigs: ["k-1:x", "other-2:y"], at: 1_000_000 };
  const b = { storeHash: hash("b"), present: false, sigs: [], at: 2_000_000 };
  const c = { storeHash: hash("c"), present: true, sigs: [], at: 500_000 };
  expect(read()).toEqual([b, a, c]);
  expect(read({ found: 600_000, missed: 0 })).toEqual([b, a]);
  expect(read({ found: 0, missed: 2_000_000 })).toEqual([a, c]);
});

test("of several files the one that was written last is in use", () => {
  write("binary-cache-v6.sqlite", { [URL]: [[hash("a"), 1, "", 1]] });
  write("binary-cache-v7.sqlite", { [URL]: [[hash("b"), 1, "", 1]] });
  write("other.sqlite", { [URL]: [[hash("c"), 1, "", 1]] });
  utimesSync(join(folder, "binary-cache-v6.sqlite"), 2000, 2000);
  utimesSync(join(folder, "binary-cache-v7.sqlite"), 1000, 1000);
  expect(read()).toMatchObject([{ storeHash: hash("a") }]);
});

describe("where nothing can be read", () => {
  test("there is no folder, no file, or another one", () => {
    expect(readNarInfoMemory(join(folder, "none"), URL, { found: 0, missed: 0 }).kind).toBe("none");
    expect(read()).toBe("none");
    writeFileSync(join(folder, "file"), "");
    expect(readNarInfoMemory(join(folder, "file"), URL, { found: 0, missed: 0 }).kind).toBe("none");
  });

  test.each<[string, () => void]>([
    ["no database", () => writeFileSync(join(folder, "binary-cache-v6.sqlite"), "x".repeat(5000))],
    ["an empty file", () => writeFileSync(join(folder, "binary-cache-v6.sqlite"), "")],
    ["other tables", () => new Database(join(folder, "binary-cache-v6.sqlite"), { create: true }).close()],
    ["a folder", () => mkdirSync(join(folder, "binary-cache-v6.sqlite"))],
  ])("%s", (_, make) => {
    make();
    expect(read()).toBe("unreadable");
  });
});

test.each([
  [URL, `${URL}/`, true],
  [`${URL}?priority=10`, URL, true],
  [`${URL}/?trusted=true#x`, `${URL}//`, true],
  [URL, `${URL}0`, false],
  [URL, `${URL}/x`, false],
])("%s and %s are one cache: %p", (a, b, expected) => {
  expect(isSameCache(a, b)).toBe(expected);
});

test.each<[Record<string, string>, string | undefined, string]>([
  [{ HOME: "/nowhere/me" }, undefined, "/nowhere/me/.cache/nix"],
  [{ HOME: "/nowhere/me", XDG_CACHE_HOME: "/c" }, "2.8.0", "/c/nix"],
  [{ XDG_CACHE_HOME: "/c", NIX_CACHE_HOME: "/n" }, "2.8.0", "/c/nix"],
  [{ XDG_CACHE_HOME: "/c", NIX_CACHE_HOME: "/n" }, "2.26.3", "/n"],
])("Nix keeps them with %p", (env, version, expected) => {
  expect(nixCacheFolder(env, version)).toBe(expected);
});

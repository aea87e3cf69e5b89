/** What another user of the machine can make of the folders that we keep files in. */
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { IndexDatabase } from "../../../src/cache/database.ts";
import type { NixcacheError } from "../../../src/errors.ts";
import { writeExpression } from "../../../src/nix/expression-file.ts";
import { BlobCache } from "../../../src/oci/blob-cache.ts";
import { digestHex, digestOf } from "../../../src/oci/digest.ts";
import { Spool } from "../../../src/oci/spool.ts";
import { Journal } from "../../../src/receive/journal.ts";
import { openOwnFolder, UnsafeFolder } from "../../../src/system/own-folder.ts";
import { replaceFile } from "../../../src/system/replace-file.ts";
import { Queue } from "../../../src/watch/queue.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { describeWith } from "../../support/needs.ts";
import { otherRuns } from "../../support/other-user.ts";
import { storeHash, TestHost, testEntry } from "../../support/protocol.ts";

const root = mkdtempSync(join(tmpdir(), "nixcache-test-folders-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
// The other user must be able to pass through.
beforeAll(() => chmodSync(root, 0o755));

let folders = 0;
function makeFolder(mode = 0o700): string {
  const folder = join(root, String(++folders));
  mkdirSync(folder);
  chmodSync(folder, mode);
  return folder;
}

const store = new MemoryStore();
const host = new TestHost();
const bytes = Buffer.from("a layer, a NAR");
const hex = digestHex(digestOf(bytes));

async function fillIndex(folder: string): Promise<void> {
  using index = IndexDatabase.open(join(folder, "cache.sqlite"));
  await index.update(
    async (change) => {
      if (index.view.narinfo(storeHash("a")) === undefined)
        change.addEntry(change.addLayer(digestOf(bytes), 1), testEntry("a").line);
    },
    async () => {},
  );
}

async function fillNarCache(folder: string): Promise<void> {
  store.blobs.set(digestOf(bytes), bytes);
  await using cache = await BlobCache.open({ directory: folder, limit: 1_000_000, host, warn: () => {} });
  const stream = await cache.over(store).readBlob(digestOf(bytes), { size: bytes.length });
  await new Response(stream).bytes();
  while (cache.status().filling > 0) await Bun.sleep(1);
}

/** Whatever keeps files of ours in a folder that can be named. */
const OWNERS: Record<string, (folder: string) => unknown> = {
  "the local index": fillIndex,
  "the NAR cache": fillNarCache,
  "the journal of uploads": (folder) => Journal.open(folder, store, Date.now)[Symbol.dispose](),
  "the queue of builds": (folder) => new Queue(folder, () => []).writeHook("#!/bin/sh\n"),
};

/** Those that make a folder of their own in one that may be everybody's. */
const TEMPORARY: Record<string, (folder: string) => unknown> = {
  "the spool": async (folder) => {
    using spool = new Spool(folder);
    await spool.make((writer) => writer.write(new Uint8Array(9 * 1024 * 1024)));
  },
  "expressions for Nix": async (folder) => {
    await using _file = await writeExpression("1", folder);
  },
};

async function refusal(open: (folder: string) => unknown, folder: string): Promise<NixcacheError> {
  try {
    await open(folder);
  } catch (error) {
    if (error instanceof UnsafeFolder) return error;
    throw error;
  }
  throw new Error("it was taken");
}

describe("S5: a folder that another user can write is refused", () => {
  test.each(Object.keys({ ...OWNERS, ...TEMPORARY }))("%s", async (name) => {
    const open = ({ ...OWNERS, ...TEMPORARY } as typeof OWNERS)[name] as (folder: string) => unknown;
    const folder = makeFolder(0o777);
    const error = await refusal(open, folder);
    expect(error.message).toContain(`${folder} belongs to `);
    expect(error.message).toEndWith("and every user can write it");
    expect(error.hint).toStartWith(`Run "chmod go-w ${folder}"`);
    expect([error.code, readdirSync(folder)]).toEqual(["filesystem", []]);
    // The command that it names is enough.
    expect(Bun.spawnSync(["chmod", "go-w", folder]).exitCode).toBe(0);
    await open(folder);
  });

  test.each(Object.keys(OWNERS))("%s, also below such a folder", async (name) => {
    const above = makeFolder(0o777);
    const folder = join(above, "below");
    mkdirSync(folder);
    expect((await refusal(OWNERS[name] as (folder: string) => unknown, folder)).message).toContain(
      `${above} `,
    );
    chmodSync(above, 0o1777);
    await OWNERS[name]?.(folder);
  });

  test("nix.conf, in such a folder", () => {
    const folder = makeFolder(0o777);
    const file = join(folder, "nix.conf");
    expect(() => replaceFile(file, undefined, bytes)).toThrow("every user can write it");
    expect(existsSync(file)).toBe(false);
  });
});

describeWith(["other user"], "S5: another user", () => {
  test.each(Object.keys(OWNERS))("has made the folder, or a link in its place: %s", async (name) => {
    const open = OWNERS[name] as (folder: string) => unknown;
    const shared = makeFolder(0o1777);
    const victim = makeFolder();
    writeFileSync(join(victim, "precious"), "x");
    otherRuns(`mkdir "$1/theirs"; ln -s "$2" "$1/link"`, shared, victim);
    expect((await refusal(open, join(shared, "theirs"))).message).toContain("belongs to nobody");
    const error = await refusal(open, join(shared, "link"));
    expect(error.message).toContain(`the link ${join(shared, "link")} belongs to nobody`);
    expect(error.hint).toStartWith(`Run "rm ${join(shared, "link")}"`);
    expect(readdirSync(victim)).toEqual(["precious"]);
  });

  test("leads nothing astray by what they left before the folder was ours alone", async () => {
    const victim = makeFolder();
    chmodSync(victim, 0o755);
    for (const name of ["precious", "e".repeat(64), crypto.randomUUID()])
      writeFileSync(join(victim, name), name);
    const before = readdirSync(victim).sort();
    const folder = makeFolder(0o777);
    const layers = join(folder, "cache.sqlite-layers");
    mkdirSync(layers);
    chmodSync(layers, 0o777);
    // A layer that they can change at any time, and a link where one is written.
    otherRuns(
      `printf junk >"$1/${hex}"; ln -s "$2/precious" "$1/${"f".repeat(64)}"; touch "$1/of-somebody"
       ln -s "$2/precious" "$1/${hex}.part"; ln -s "$2/precious" "$3/cache.sqlite"`,
      layers,
      victim,
      folder,
    );
    for (const each of [folder, layers]) chmodSync(each, 0o755);
    await fillIndex(folder);
    await fillIndex(folder);
    expect(readdirSync(layers).sort()).toEqual([hex, "of-somebody"].sort());
    for (const name of before) expect(readFileSync(join(victim, name), "utf8")).toBe(name);
    expect(readdirSync(victim).sort()).toEqual(before);
  });
});

describe("S5: links of ours, or from before, lead to nothing that is removed or written", () => {
  function victim(): { folder: string; check: () => void } {
    const folder = makeFolder();
    const names = ["precious", "e".repeat(64), `${hex}.part`, crypto.randomUUID(), "lock", "0"];
    for (const name of names) writeFileSync(join(folder, name), name);
    return {
      folder,
      check: () => {
        expect(readdirSync(folder).sort()).toEqual([...names].sort());
        for (const name of names) expect(readFileSync(join(folder, name), "utf8")).toBe(name);
      },
    };
  }

  test("a link in place of a folder within ours is refused", async () => {
    const inner: [string, string][] = [
      ["the local index", "cache.sqlite-layers"],
      ["the NAR cache", "blobs-v1"],
      ["the NAR cache", "filling"],
      ["the journal of uploads", "blobs"],
      ["the journal of uploads", "drafts"],
      ["the queue of builds", "built"],
    ];
    for (const [name, link] of inner) {
      const { folder: target, check } = victim();
      const folder = makeFolder();
      symlinkSync(target, join(folder, link));
      const outcome = await Promise.resolve()
        .then(() => OWNERS[name]?.(folder))
        .then(
          () => "taken",
          (error) => error.message,
        );
      // A NAR cache that cannot be used is a warning.
      expect([name, outcome]).toEqual([
        name,
        name === "the NAR cache" ? "taken" : expect.stringContaining(`${join(folder, link)} is a link`),
      ]);
      check();
    }
  });

  test("a link in place of a file of ours is not followed", async () => {
    const { folder: target, check } = victim();
    const precious = join(target, "precious");
    const places: [string, string][] = [
      ["the local index", "cache.sqlite"],
      ["the local index", "cache.sqlite-wal"],
      ["the local index", join("cache.sqlite-layers", hex)],
      ["the local index", join("cache.sqlite-layers", `${hex}.part`)],
      ["the local index", join("cache.sqlite-layers", "f".repeat(64))],
      ["the NAR cache", join("blobs-v1", hex)],
      ["the NAR cache", join("filling", crypto.randomUUID())],
      ["the journal of uploads", join("blobs", hex)],
      ["the journal of uploads", join("drafts", crypto.randomUUID())],
      ["the queue of builds", "hook"],
    ];
    for (const [name, link] of places) {
      const folder = makeFolder();
      mkdirSync(join(folder, link, ".."), { recursive: true });
      symlinkSync(link.startsWith("filling") ? target : precious, join(folder, link));
      await OWNERS[name]?.(folder);
      check();
    }
    const folder = makeFolder();
    symlinkSync(precious, join(folder, "journal.sqlite"));
    expect(() => OWNERS["the journal of uploads"]?.(folder)).toThrow("is a symbolic link");
    check();
  });

  test("a second name of somebody's database is not taken for the index", async () => {
    const theirs = join(makeFolder(), "history.sqlite");
    using database = new Database(theirs);
    database.run("CREATE TABLE visit (url TEXT)");
    const folder = makeFolder();
    linkSync(theirs, join(folder, "cache.sqlite"));
    await fillIndex(folder);
    expect(database.query("SELECT name FROM sqlite_master").all()).toEqual([{ name: "visit" }]);
    expect(lstatSync(join(folder, "cache.sqlite")).nlink).toBe(1);
  });

  test("what is not named as ours stays", async () => {
    const folder = makeFolder();
    const strangers = [
      join("cache.sqlite-layers", "notes"),
      join("blobs-v1", "notes"),
      join("filling", "notes"),
      join("filling", crypto.randomUUID(), "notes"),
      join("blobs", "notes"),
      join("drafts", "notes"),
      join(`nixcache-spool-${(await import("node:os")).hostname()}-999999999-x`, "notes"),
    ];
    for (const file of strangers) {
      mkdirSync(join(folder, file, ".."), { recursive: true });
      writeFileSync(join(folder, file), "x");
    }
    for (const open of Object.values({ ...OWNERS, ...TEMPORARY })) await open(folder);
    // And once more, since the index is thrown away when it is damaged.
    writeFileSync(join(folder, "cache.sqlite"), "damaged");
    await fillIndex(folder);
    expect(strangers.filter((file) => !existsSync(join(folder, file)))).toEqual([]);
  });
});

describe("S5: no refusal", () => {
  test("of folders that are ours, however they are reached", () => {
    // As systemd makes it for a unit with DynamicUser and CacheDirectory.
    const cache = makeFolder(0o755);
    mkdirSync(join(cache, "private", "nixcache"), { recursive: true });
    chmodSync(join(cache, "private"), 0o700);
    symlinkSync(join("private", "nixcache"), join(cache, "nixcache"));
    expect(openOwnFolder(join(cache, "nixcache"), "nars")).toBe(join(cache, "nixcache", "nars"));
    // ~/.cache on another disk.
    const [home, disk] = [makeFolder(0o755), makeFolder(0o700)];
    symlinkSync(disk, join(home, ".cache"));
    openOwnFolder(join(home, ".cache", "nixcache"));
    expect(lstatSync(join(disk, "nixcache")).mode & 0o777).toBe(0o700);
    // In everybody's folder, where the sticky bit keeps what is ours.
    openOwnFolder(join(makeFolder(0o1777), "nixcache"));
  });
});

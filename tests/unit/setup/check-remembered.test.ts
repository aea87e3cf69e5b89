import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type EntryLine, entryOf } from "../../../src/cache/entry.ts";
import { signNarInfo } from "../../../src/nar/signature.ts";
import {
  formatPublicKey,
  generateSecretKey,
  publicKeyOf,
  type SecretKey,
} from "../../../src/nar/signing-key.ts";
import type { RememberedPath } from "../../../src/nix/narinfo-cache.ts";
import type { Trust } from "../../../src/nix/trust.ts";
import { checkRemembered, findStale } from "../../../src/setup/check-remembered.ts";
import { storeHash, testEntry } from "../../support/protocol.ts";

const KEY = generateSecretKey("k-1", new Uint8Array(32).fill(3));
const OTHER = generateSecretKey("other-1", new Uint8Array(32).fill(4));

function line(name: string, ...keys: SecretKey[]): EntryLine {
  const { info } = entryOf(testEntry(name).line);
  return testEntry(name, { sigs: keys.map((key) => signNarInfo(info, key)) }).line;
}

const lines = new Map(
  [line("signed", KEY), line("by-other", OTHER), line("unsigned")].map((one) => [one.storeHash, one]),
);
const view = { line: (hash: string) => lines.get(hash) };

const remembered = (name: string, present: boolean, ...sigs: string[]): RememberedPath => ({
  storeHash: storeHash(name),
  present,
  sigs,
  at: 1000,
});

const stale = (paths: readonly RememberedPath[], keys = [publicKeyOf(KEY)]) => {
  const { unsigned, missed } = findStale(paths, view, keys);
  const names = (found: readonly string[]) => found.map((path) => path.slice("/nix/store/".length + 33));
  return { unsigned: names(unsigned), missed: names(missed) };
};

test("what is remembered unsigned and is signed now", () => {
  expect(stale([remembered("signed", true)])).toEqual({ unsigned: ["signed"], missed: [] });
  expect(stale([remembered("signed", true, "other-1:x")])).toEqual({ unsigned: ["signed"], missed: [] });
});

test("not what is remembered with a key that Nix trusts, nor what no such key has signed now", () => {
  const paths = [
    remembered("signed", true, "k-1:x"),
    remembered("by-other", true),
    remembered("unsigned", true),
    remembered("gone", true),
  ];
  expect(stale(paths)).toEqual({ unsigned: [], missed: [] });
});

test("nothing where Nix wants no signatures, but what it remembers as missing", () => {
  const paths = [remembered("signed", true), remembered("unsigned", false), remembered("gone", false)];
  expect(stale(paths, [])).toEqual({ unsigned: [], missed: ["unsigned"] });
});

test("the last one says how long it takes", () => {
  const at = [5, 9, 7].map((at) => ({ ...remembered("signed", true), at }));
  expect(findStale(at, view, [publicKeyOf(KEY)])).toMatchObject({ unsignedAt: 9, missedAt: 0 });
});

describe("where a daemon fetches", () => {
  const URL = "http://127.0.0.1:37515";
  const NOW = Date.UTC(2026, 0, 31);
  const configuration = {
    ...{ substituters: [`${URL}?priority=10`], trustedPublicKeys: [formatPublicKey(publicKeyOf(KEY))] },
    ...{ requireSigs: true, trustedUsers: ["root"], trustedSubstituters: [] },
    ...{ positiveTtlMs: 30 * 24 * 3_600_000, negativeTtlMs: 3_600_000 },
  };
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "nixcache-test-remembered-"));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  /** Of the daemon or the user: the signed path without its signature, a day ago. */
  function remember(of: "root" | "user", at = NOW - 24 * 3_600_000, present = 1): void {
    const cache = join(folder, of, ".cache", "nix");
    mkdirSync(cache, { recursive: true });
    using db = new Database(join(cache, "binary-cache-v6.sqlite"), { create: true });
    db.run("CREATE TABLE BinaryCaches (id integer, url text)");
    db.run("CREATE TABLE NARs (cache integer, hashPart text, sigs text, timestamp integer, present integer)");
    db.run("INSERT INTO BinaryCaches VALUES (1, ?)", [URL]);
    db.run("INSERT INTO NARs VALUES (1, ?, '', ?, ?)", [storeHash("signed"), at / 1000, present]);
  }

  const check = (trust: Trust) =>
    checkRemembered(
      {
        url: URL,
        host: { now: () => NOW, random: Math.random, sleep: async () => {} },
        env: { XDG_CACHE_HOME: join(folder, "user", ".cache") },
        index: async () => ({ view, error: undefined }) as never,
        configuration: async () => configuration,
        trust: async () => trust,
        version: async () => "2.8.0",
      },
      join(folder, "root"),
    );

  const untrusted = { kind: "untrusted", user: "me", daemon: configuration } as const;

  test("what it remembers counts, and an option counts from a trusted user alone", async () => {
    remember("root");
    expect(await check({ kind: "no-daemon" })).toMatchObject({ state: "ok" });
    expect(await check({ kind: "trusted", user: "me" })).toMatchObject({
      state: "wrong",
      text: expect.stringContaining("the Nix daemon remembers 1 path of"),
      mend: expect.stringContaining("--option narinfo-cache-positive-ttl 0, or remove"),
    });
    expect(await check(untrusted)).toMatchObject({
      state: "wrong",
      text: expect.stringContaining("for up to 29 days more"),
      mend: `Remove ${folder}/root/.cache/nix/binary-cache-v6.sqlite as root, which is no loss.`,
    });
  });

  test("so does what this user remembers, for nix copy", async () => {
    remember("user", NOW - 60_000, 0);
    const found = await check(untrusted);
    expect(found).toMatchObject({
      state: "wrong",
      text: expect.stringMatching(
        /^Nix remembers that \S+ lacks 1 path that it has now, for up to 59 min more/,
      ),
      mend: expect.stringContaining("--option narinfo-cache-negative-ttl 0, or remove"),
    });
  });

  test("nothing counts that is too old, or that Nix takes unsigned", async () => {
    remember("user", NOW - 31 * 24 * 3_600_000);
    remember("root", NOW - 2 * 3_600_000, 0);
    expect(await check(untrusted)).toMatchObject({ state: "ok" });
    const trusting = { ...configuration, substituters: [`${URL}/?trusted=true`] };
    rmSync(join(folder, "root"), { recursive: true });
    remember("root");
    expect(await check({ ...untrusted, daemon: trusting })).toMatchObject({ state: "ok" });
    expect(await check(untrusted)).toMatchObject({ state: "wrong" });
  });
});

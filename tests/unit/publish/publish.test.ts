import { describe, expect, test } from "bun:test";
import { entryOf } from "../../../src/cache/entry.ts";
import { rootsOf } from "../../../src/cache/roots.ts";
import { NixcacheError } from "../../../src/errors.ts";
import { formatNarInfo } from "../../../src/nar/narinfo.ts";
import { signNarInfo, verifyNarInfo } from "../../../src/nar/signature.ts";
import { generateSecretKey, publicKeyOf } from "../../../src/nar/signing-key.ts";
import type { PathInfo } from "../../../src/nix/store.ts";
import type { Digest } from "../../../src/oci/digest.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { Compressor } from "../../../src/publish/nar-file.ts";
import { type PublishContext, publish } from "../../../src/publish/publish.ts";
import { readNar } from "../../../src/serve/nar.ts";
import { silentProgress } from "../../../src/terminal/progress.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { party, storeHash, type TestParty } from "../../support/protocol.ts";
import { narInfoOf, noise, pathOf, type TestPath, testClosure } from "../../support/publish.ts";
import { memoryUpstream } from "../../support/upstream-double.ts";

const KEY = generateSecretKey("test-1", new Uint8Array(32).fill(7));
const ORIGIN = { tool: "test", source: "paths", roots: {} };

function contextOf(
  machine: TestParty,
  dump: PublishContext["dump"],
  more: Partial<PublishContext> = {},
): PublishContext {
  const compressor = new Compressor(3, 2);
  return {
    ...machine,
    upstreams: [],
    dump,
    key: KEY,
    compressor,
    partBytes: 1 << 30,
    unitsAtOnce: 4,
    progress: silentProgress(),
    ...more,
  };
}

/** Publishes as a machine that has never seen the cache. */
async function publishTo(
  store: MemoryStore,
  paths: readonly TestPath[],
  more: Partial<PublishContext> & { broken?: Set<string> } = {},
) {
  using machine = party(store);
  const { closure, dump, dumped } = testClosure(paths, more.broken);
  const result = await publish(closure, ORIGIN, contextOf(machine, dump, more));
  return { result, dumped, warnings: machine.warnings };
}

/** What a reader finds under a name: its entry and the unpacked NAR. */
async function readBack(store: MemoryStore, name: string) {
  using machine = party(store);
  await refresh(machine);
  const line = machine.database.view.line(storeHash(name));
  if (line === undefined) return undefined;
  const entry = entryOf(line);
  const bytes = await readNar({ parts: entry.parts, fileHash: undefined }, store);
  return { entry, nar: new Uint8Array(Bun.zstdDecompressSync(bytes as Uint8Array<ArrayBuffer>)) };
}

describe("publish", () => {
  test("small NARs share packs, large ones get blobs of their own, and all come back right", async () => {
    const store = new MemoryStore();
    const small = Array.from({ length: 40 }, (_, i) => ({ name: `small-${i}`, size: 1000 + i * 997 }));
    const large = { name: "large", size: 20 * 1024 * 1024 + 17, references: ["small-3", "large"] };
    const { result } = await publishTo(store, [...small, large]);
    expect(result.paths).toEqual({ closure: 41, upstream: 0, restated: 0, uploaded: 41 });
    // One pack, one large NAR, the index layers of segment and root, the empty config.
    expect(store.blobs.size).toBe(5);
    for (const { name, size } of [...small, large]) {
      const found = await readBack(store, name);
      expect(found?.nar).toEqual(noise(name, size));
      expect(verifyNarInfo(found?.entry.info as never, [publicKeyOf(KEY)])).toBe(true);
    }
    expect((await readBack(store, "large"))?.entry.info.references).toEqual(
      [pathOf("small-3"), pathOf("large")].map((path) => path.slice(11)).sort(),
    );
  });

  test("a NAR over the part size becomes parts whose concatenation is one zstd file", async () => {
    const store = new MemoryStore();
    await publishTo(store, [{ name: "large", size: 5_000_000 }], { partBytes: 1_000_000 });
    const found = await readBack(store, "large");
    expect(found?.entry.parts.length).toBeGreaterThan(3);
    for (const part of found?.entry.parts ?? []) expect(part.length).toBeLessThanOrEqual(1_001_000);
    expect(found?.nar).toEqual(noise("large", 5_000_000));
  });

  test("a NAR of exactly some frames", async () => {
    const store = new MemoryStore();
    await publishTo(store, [{ name: "even", size: 16 * 1024 * 1024 }]);
    expect((await readBack(store, "even"))?.nar).toEqual(noise("even", 16 * 1024 * 1024));
  });

  test("again: nothing is dumped or uploaded, and nothing written", async () => {
    const store = new MemoryStore();
    const paths = [{ name: "a" }, { name: "b", references: ["a"] }];
    await publishTo(store, paths);
    const tags = [...store.tags];
    store.written.length = 0;
    const { result, dumped } = await publishTo(store, paths);
    expect(result).toMatchObject({ generation: null, paths: { restated: 2, uploaded: 0 } });
    expect(dumped).toEqual([]);
    expect(store.written).toEqual([]);
    expect([...store.tags]).toEqual(tags);
  });

  test("a grown closure uploads what is new and restates the rest", async () => {
    const store = new MemoryStore();
    await publishTo(store, [{ name: "a" }]);
    const { result, dumped } = await publishTo(store, [{ name: "a" }, { name: "b", references: ["a"] }]);
    expect(result.paths).toEqual({ closure: 2, upstream: 0, restated: 1, uploaded: 1 });
    expect(dumped).toEqual(["b"]);
    // The new generation alone holds everything: the first may end.
    const [first] = store.tagsOf("seg-");
    await store.deleteManifest(store.tags.get(first as string) as Digest);
    store.collect();
    expect((await readBack(store, "a"))?.nar).toEqual(noise("a", 500));
  });

  test("rule 7: a revert within a day is published", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const roots = (name: string) => ({ ...ORIGIN, roots: { default: pathOf(name) } });
    const run = async (name: string) => {
      const { closure, dump } = testClosure([{ name }]);
      machine.host.time += 60_000;
      return (await publish(closure, roots(name), contextOf(machine, dump))).generation;
    };
    expect(await run("old")).not.toBeNull();
    expect(await run("new")).not.toBeNull();
    expect(await run("new")).toBeNull();
    expect(await run("old")).not.toBeNull();
    machine.host.time += 25 * 3_600_000;
    expect(await run("old")).not.toBeNull();
  });

  test("what succeeds another within the same second has a later name", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const run = async (name: string) => {
      const { closure, dump } = testClosure([{ name }]);
      const { time } = machine.host;
      const origin = { ...ORIGIN, roots: { default: pathOf(name) } };
      const { generation } = await publish(closure, origin, contextOf(machine, dump));
      // Folding may have waited.
      machine.host.time = time;
      return generation;
    };
    const names: (string | null)[] = [];
    for (let round = 0; round < 10; round++) names.push(await run("old"), await run("new"));
    expect(names).toEqual(names.toSorted());
    expect(await run("new")).toBeNull();
  });

  test("defect 4: a signature that is there already, made here or elsewhere, hides no path", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { closure, dump } = testClosure([{ name: "a" }]);
    const [info] = closure;
    const ours = signNarInfo({ ...(info as PathInfo), storePath: pathOf("a") }, KEY);
    const theirs = `cache.example-1:${Buffer.alloc(64).toString("base64")}`;
    const signed = [{ ...(info as PathInfo), sigs: [theirs, ours] }];
    const result = await publish(signed, ORIGIN, contextOf(machine, dump));
    expect(result.paths.uploaded).toBe(1);
    expect((await readBack(store, "a"))?.entry.info.sigs).toEqual([theirs, ours]);
  });

  test("what is no signature is left out, as some clients would give up on the path for it", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { closure, dump } = testClosure([{ name: "a" }]);
    const theirs = `cache.example-1:${Buffer.alloc(64).toString("base64")}`;
    const sigs = ["", "x", "other-1:", "other-1:!", theirs, ":AAAA", "other-1:AAAA"];
    await publish(
      closure.map((info) => ({ ...info, sigs })),
      ORIGIN,
      { ...contextOf(machine, dump), key: undefined },
    );
    expect((await readBack(store, "a"))?.entry.info.sigs).toEqual([theirs]);
  });

  test("a list of many bare paths is one root of the record, and recognised", async () => {
    const many = Array.from({ length: 30_000 }, (_, i) => pathOf(`p-${i}`));
    const roots = rootsOf(many);
    expect(JSON.stringify(roots).length).toBeLessThan(200);
    expect(rootsOf([...many].reverse())).toEqual(roots);
    expect(rootsOf(many.slice(1))).not.toEqual(roots);
    expect(rootsOf([pathOf("a"), pathOf("a")])).toEqual({ [pathOf("a").slice(11)]: pathOf("a") });
  });

  test("a line that no reader takes is refused before anything is written", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { closure, dump } = testClosure([{ name: "a" }]);
    const roots = { x: "y".repeat(5_000_000) };
    await expect(publish(closure, { ...ORIGIN, roots }, contextOf(machine, dump))).rejects.toMatchObject({
      code: "internal",
    });
    expect(store.tags.size).toBe(0);
  });

  test("paths with the same NAR share it", async () => {
    const store = new MemoryStore();
    const { dumped } = await publishTo(store, [
      { name: "a", content: "same" },
      { name: "b", content: "same" },
    ]);
    expect(dumped).toEqual(["a"]);
    expect((await readBack(store, "b"))?.nar).toEqual(noise("same", 500));
  });

  test("defect 5: a path that is not what Nix recorded is left out with its dependents, the rest is there", async () => {
    const store = new MemoryStore();
    const paths = [
      { name: "good" },
      { name: "bad" },
      { name: "user", references: ["bad", "good"] },
      { name: "large-bad", size: 3_000_000 },
      { name: "top", references: ["user"] },
    ];
    const { result } = await publishTo(store, paths, { broken: new Set(["bad", "large-bad"]) });
    expect(result.leftOut.map(({ path }) => path)).toEqual(["bad", "user", "large-bad", "top"].map(pathOf));
    expect(result.leftOut[0]?.reason).toContain("Nix recorded");
    expect(result.leftOut[1]?.reason).toContain(pathOf("bad"));
    expect(result.paths.uploaded).toBe(1);
    expect(await readBack(store, "good")).toBeDefined();
    for (const name of ["bad", "user", "top", "large-bad"])
      expect(await readBack(store, name)).toBeUndefined();
  });

  test("a blob that cannot be uploaded costs its paths; a store that is gone ends the publish", async () => {
    const paths = Array.from({ length: 6 }, (_, i) => ({ name: `large-${i}`, size: 1_100_000 }));
    const store = new MemoryStore();
    let failures = 1;
    store.before = (call) => {
      if (call === "writeBlob" && failures-- > 0) throw new NixcacheError("unreachable", "503 for ever");
    };
    const { result } = await publishTo(store, paths);
    expect(result.leftOut).toHaveLength(1);
    expect(result.leftOut[0]?.reason).toContain("503 for ever");
    expect(result.paths.uploaded).toBe(5);
    failures = Number.POSITIVE_INFINITY;
    const down = new MemoryStore();
    down.before = store.before;
    await expect(publishTo(down, paths)).rejects.toMatchObject({ code: "unreachable" });
    expect(down.tags.size).toBe(0);
  });

  test("a hold that fails on the way costs nothing, and its blobs are held by the next one", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { host } = machine;
    let failures = 0;
    store.before = (call, subject) => {
      // Slow enough for a hold after every few blobs.
      if (call === "writeBlob") host.time += 6 * 60_000;
      if (call !== "writeManifest" || !subject.startsWith("hold-") || failures > 0) return;
      failures++;
      throw new NixcacheError("unreachable", "the registry is down");
    };
    const paths = Array.from({ length: 12 }, (_, at) => ({ name: `large-${at}`, size: 1_100_000 }));
    const { closure, dump } = testClosure(paths);
    const result = await publish(closure, ORIGIN, contextOf(machine, dump));
    expect(failures).toBe(1);
    expect(result).toMatchObject({ paths: { uploaded: 12 }, leftOut: [] });
    store.collect();
    for (const { name, size } of paths) expect((await readBack(store, name))?.nar).toEqual(noise(name, size));
  });

  test("another build of a path is uploaded and shown, whatever the cache has of the one before", async () => {
    const store = new MemoryStore();
    const build = (content: string) => [{ name: "a", content }];
    await publishTo(store, build("one"), { key: undefined });
    const { result, dumped } = await publishTo(store, build("two"), { key: undefined });
    expect(dumped).toEqual(["a"]);
    expect(result.paths).toMatchObject({ restated: 0, uploaded: 1 });
    expect((await readBack(store, "a"))?.nar).toEqual(noise("two", 500));
  });

  test("a blob that vanished from the cache is dumped and uploaded again", async () => {
    const store = new MemoryStore();
    const paths = [
      { name: "a", size: 1_100_000 },
      { name: "b", size: 1_100_000 },
    ];
    await publishTo(store, [paths[0] as TestPath]);
    const lost = (await readBack(store, "a"))?.entry.parts[0]?.blob as Digest;
    store.blobs.delete(lost);
    const { result, dumped, warnings } = await publishTo(store, paths);
    expect(result.generation).not.toBeNull();
    expect(dumped).toEqual(["b", "a"]);
    expect(warnings[0]).toContain("gone from the cache");
    expect((await readBack(store, "a"))?.nar).toEqual(noise("a", 1_100_000));
  });

  test("a key that is new to the cache signs what is restated, and keeps the other signatures", async () => {
    const store = new MemoryStore();
    await publishTo(store, [{ name: "a" }]);
    const other = generateSecretKey("other-1", new Uint8Array(32).fill(9));
    const { result } = await publishTo(store, [{ name: "a" }], { key: other });
    expect(result.paths.uploaded).toBe(0);
    const info = (await readBack(store, "a"))?.entry.info;
    for (const key of [KEY, other]) expect(verifyNarInfo(info as never, [publicKeyOf(key)])).toBe(true);
  });

  test("paths that had no signature before, and have one now, are counted", async () => {
    const store = new MemoryStore();
    const paths = [{ name: "a" }, { name: "b" }];
    const unsigned = await publishTo(store, paths, { key: undefined });
    expect(unsigned.result.signedNow).toBeUndefined();
    expect((await publishTo(store, [...paths, { name: "c" }])).result.signedNow).toBe(2);
    expect((await publishTo(store, paths)).result.signedNow).toBeUndefined();
  });

  test("what an upstream has is left out; one that fails counts as not having it, with one warning", async () => {
    const store = new MemoryStore();
    const paths = Array.from({ length: 20 }, (_, i) => ({ name: `p-${i}` }));
    const asked: string[] = [];
    const upstream = memoryUpstream("https://upstream", async (hash) => {
      asked.push(hash);
      return hash === storeHash("p-1") ? formatNarInfo(narInfoOf({ name: "p-1" })) : undefined;
    });
    const dead = memoryUpstream("https://dead", async () => {
      throw new NixcacheError("unreachable", "no route");
    });
    const { result, warnings } = await publishTo(store, paths, { upstreams: [dead, upstream] });
    expect(result.paths).toEqual({ closure: 20, upstream: 1, restated: 0, uploaded: 19 });
    expect(asked).toHaveLength(20);
    expect(warnings).toEqual([
      "upstream https://dead cannot be asked, so nothing is left out for it: no route",
    ]);
    expect(await readBack(store, "p-1")).toBeUndefined();
  });

  test("a dry run changes nothing and says what would be done", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { closure, dump, dumped } = testClosure([{ name: "a" }]);
    const result = await publish(closure, ORIGIN, contextOf(machine, dump), { dryRun: true });
    expect(result).toMatchObject({ generation: null, paths: { uploaded: 1 }, bytes: { nar: 500, sent: 0 } });
    expect(dumped).toEqual([]);
    expect(store.calls.filter((call) => call.startsWith("write"))).toEqual([]);
  });

  test("a run that starts again makes the same blobs and finds those that are there", async () => {
    const paths = Array.from({ length: 30 }, (_, i) => ({ name: `p-${i}`, size: 700_000 }));
    const store = new MemoryStore();
    store.before = (call, subject) => {
      if (call === "writeManifest" && subject.startsWith("seg-")) throw new Error("killed");
    };
    await expect(publishTo(store, paths)).rejects.toThrow("killed");
    const uploaded = new Set(store.written);
    store.before = () => {};
    store.written.length = 0;
    await publishTo(store, paths);
    // Only the index layers are new: they hold the time.
    expect(store.written.filter((digest) => uploaded.has(digest))).toEqual([]);
    expect(store.written).toHaveLength(2);
  });

  test("defect 19: 2,000 small paths cost at most 60 writes", async () => {
    const store = new MemoryStore();
    const paths = Array.from({ length: 2000 }, (_, i) => ({
      name: `p-${i}`,
      size: 300 + ((i * 7919) % 20_000),
    }));
    await publishTo(store, paths);
    // A blob is two requests on a registry, a manifest one.
    const writes = store.calls.reduce(
      (sum, call) => sum + (call.startsWith("writeBlob") ? 2 : call.startsWith("writeManifest") ? 1 : 0),
      0,
    );
    expect(writes).toBeLessThanOrEqual(60);
  });
});

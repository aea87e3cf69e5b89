/** Publishing another build of a path of which the cache has one that is signed. */
import { describe, expect, test } from "bun:test";
import { type EntryLine, entryOf } from "../../../src/cache/entry.ts";
import { formatNarInfo } from "../../../src/nar/narinfo.ts";
import { verifyNarInfo } from "../../../src/nar/signature.ts";
import { generateSecretKey, publicKeyOf, type SecretKey } from "../../../src/nar/signing-key.ts";
import { storeHashOf } from "../../../src/nar/store-path.ts";
import type { Digest } from "../../../src/oci/digest.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { Compressor } from "../../../src/publish/nar-file.ts";
import { type PublishContext, publish } from "../../../src/publish/publish.ts";
import { silentProgress } from "../../../src/terminal/progress.ts";
import type { Upstream } from "../../../src/upstream/client.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { party, storeHash, TestHost } from "../../support/protocol.ts";
import { narInfoOf, pathInfo, pathOf, type TestPath, testClosure } from "../../support/publish.ts";

const keyOf = (name: string, seed: number) => generateSecretKey(name, new Uint8Array(32).fill(seed));
const [MINE, OTHER] = [keyOf("mine-1", 1), keyOf("other-1", 2)];
const ORIGIN = { tool: "test", source: "github:o/r", branch: "main", selection: "all", roots: {} };

interface Publisher extends Partial<PublishContext> {
  readonly key: SecretKey | undefined;
  readonly dryRun?: boolean;
}

let hour = 0;

/** As a machine that has never seen the cache, an hour after the one before. */
async function publishTo(store: MemoryStore, paths: readonly TestPath[], { dryRun, ...more }: Publisher) {
  const keys = more.key === undefined ? [] : [publicKeyOf(more.key)];
  using machine = party(store, new TestHost(Date.UTC(2026, 0, 1, ++hour)), keys);
  const { closure, dump, dumped } = testClosure(paths);
  const context = {
    ...machine,
    ...{ upstreams: [], dump, partBytes: 1 << 30, unitsAtOnce: 4, progress: silentProgress() },
    compressor: new Compressor(3, 2),
    ...more,
  };
  const result = await publish(closure, ORIGIN, context, { dryRun: dryRun === true });
  return { result, dumped, left: result.leftOut.map(({ path }) => path) };
}

/** By name, whose build of each path is shown to a machine with these keys, and which of these accept it. */
async function shownTo(store: MemoryStore, names: readonly string[], keys: readonly SecretKey[] = []) {
  using machine = party(store, undefined, keys.map(publicKeyOf));
  await refresh(machine);
  const { view } = machine.database;
  for (const { parts, info } of view
    .hashesFrom("", 1000)
    .map((hash) => entryOf(view.line(hash) as EntryLine))) {
    expect(parts.map(({ blob }) => store.blobs.has(blob))).not.toContain(false);
    expect(info.references.map((base) => view.narinfo(storeHashOf(base)) !== undefined)).not.toContain(false);
  }
  return Object.fromEntries(
    names.map((name) => {
      const line = machine.database.view.line(storeHash(name));
      const info = line && entryOf(line).info;
      const by = [MINE, OTHER].filter((key) => info && verifyNarInfo(info, [publicKeyOf(key)]));
      return [name, info && [info.narHash, ...by.map((key) => key.name)]];
    }),
  );
}

const narHash = (content: string) => pathInfo({ name: "", content }).narHash;
const P = (content = "p") => ({ name: "p", content });
const T = { name: "t", references: ["p"] };

describe("a build that differs from a signed one", () => {
  test.each([
    ["unsigned", undefined],
    ["signed by another key", OTHER],
    ["signed by the same key", MINE],
  ])("stays out, %s, with what depends on it; what was signed stays as it is", async (_, key) => {
    const store = new MemoryStore();
    await publishTo(store, [P("first"), T], { key: MINE });
    const blobs = store.blobs.size;
    const changed = [P("second"), T, { name: "new", references: ["t"] }, { name: "apart" }];
    const { result, left, dumped } = await publishTo(store, changed, { key });
    expect(left).toEqual(["p", "t", "new"].map(pathOf));
    expect(result.leftOut.map(({ reason }) => reason)).toEqual([
      `the cache keeps another build of it (${narHash("first")}), signed by mine-1; --replace-signed publishes this one`,
      `it refers to ${pathOf("p")}, which was left out`,
      `it refers to ${pathOf("t")}, which was left out`,
    ]);
    expect(result.paths).toMatchObject({ uploaded: 1 });
    expect(dumped).toEqual(["apart"]);
    // The NAR of "apart", and an index layer each of the generation and of the root.
    expect(store.blobs.size).toBe(blobs + 3);
    const expected = { p: [narHash("first"), "mine-1"], t: [narHash("t"), "mine-1"], new: undefined };
    for (const keys of [[], [MINE], [OTHER]])
      expect(await shownTo(store, ["p", "t", "new"], keys)).toEqual(expected);
  });

  test("stays in the generation that succeeds it: what people use does not end with the one before", async () => {
    const store = new MemoryStore();
    await publishTo(store, [{ name: "q" }, { ...P("first"), references: ["q"] }, T], { key: MINE });
    await publishTo(store, [P("second"), T, { name: "apart" }], { key: undefined });
    const [first] = store.tagsOf("seg-");
    await store.deleteManifest(store.tags.get(first as string) as Digest);
    store.collect();
    const shown = await shownTo(store, ["p", "q", "t"], [MINE]);
    expect(Object.values(shown).map((found) => found?.[1])).toEqual(["mine-1", "mine-1", "mine-1"]);
  });

  test("makes no generation where nothing else is published", async () => {
    const store = new MemoryStore();
    await publishTo(store, [P("first")], { key: MINE });
    const tags = store.tagsOf("seg-");
    const { result } = await publishTo(store, [P("second")], { key: undefined });
    expect(result).toMatchObject({ generation: null, leftOut: [{ path: pathOf("p") }] });
    expect(store.tagsOf("seg-")).toEqual(tags);
  });

  test("is told by a dry run, which writes nothing", async () => {
    const store = new MemoryStore();
    await publishTo(store, [P("first")], { key: MINE });
    store.calls.length = 0;
    const { left } = await publishTo(store, [P("second"), T], { key: MINE, dryRun: true });
    expect(left).toEqual(["p", "t"].map(pathOf));
    expect(store.calls.filter((call) => call.startsWith("write"))).toEqual([]);
  });

  test("is no matter where an upstream has it", async () => {
    const store = new MemoryStore();
    await publishTo(store, [P("first")], { key: MINE });
    const narinfo = formatNarInfo(narInfoOf(P("second")));
    const upstream = { url: "up", narinfo: async () => narinfo } as unknown as Upstream;
    const { result } = await publishTo(store, [P("second")], { key: MINE, upstreams: [upstream] });
    expect(result).toMatchObject({ leftOut: [], paths: { upstream: 1 } });
  });

  test("whose references differ alone is another build, too", async () => {
    const store = new MemoryStore();
    await publishTo(store, [{ name: "q" }, { name: "p", references: ["q"] }], { key: MINE });
    const { left } = await publishTo(store, [{ name: "q" }, P()], { key: OTHER });
    expect(left).toEqual([pathOf("p")]);
  });
});

describe("with --replace-signed", () => {
  test("takes the place of the signed one, with what depends on it; who has the other key alone keeps the first", async () => {
    const store = new MemoryStore();
    await publishTo(store, [P("first"), T], { key: MINE });
    const again = [P("second"), T, { name: "new", references: ["t"] }];
    const { result } = await publishTo(store, again, { key: OTHER, replaceSigned: true });
    expect(result.leftOut).toEqual([]);
    const both = ["mine-1", "other-1"];
    const second = {
      p: [narHash("second"), "other-1"],
      t: [narHash("t"), ...both],
      new: [narHash("new"), "other-1"],
    };
    expect(await shownTo(store, ["p", "t", "new"])).toEqual(second);
    expect(await shownTo(store, ["p", "t", "new"], [OTHER])).toEqual(second);
    expect(await shownTo(store, ["p", "t"], [MINE])).toEqual({
      p: [narHash("first"), "mine-1"],
      t: second.t,
    });
    // From now on it is the signed one.
    expect((await publishTo(store, [P("first")], { key: undefined })).left).toEqual([pathOf("p")]);
  });

  test("is made after the one that it replaces, whatever the clocks", async () => {
    const store = new MemoryStore();
    hour += 48;
    await publishTo(store, [P("first")], { key: MINE });
    hour -= 48;
    await publishTo(store, [P("second")], { key: MINE, replaceSigned: true });
    expect(await shownTo(store, ["p"])).toEqual({ p: [narHash("second"), "mine-1"] });
  });
});

describe("of unsigned builds", () => {
  test("the later one is shown, and a signed one before both, though it was made first", async () => {
    const store = new MemoryStore();
    await publishTo(store, [P("first"), T], { key: undefined });
    expect((await publishTo(store, [P("second"), T], { key: undefined })).left).toEqual([]);
    expect(await shownTo(store, ["p"])).toEqual({ p: [narHash("second")] });
    expect((await publishTo(store, [P("third"), T], { key: MINE })).left).toEqual([]);
    expect(await shownTo(store, ["p"])).toEqual({ p: [narHash("third"), "mine-1"] });
  });

  test("what is in the cache unsigned is not signed unless it is what is published", async () => {
    const store = new MemoryStore();
    await publishTo(store, [{ name: "q" }, { name: "p", references: ["q"] }], { key: undefined });
    await publishTo(store, [{ name: "q" }, P()], { key: MINE });
    using machine = party(store);
    await refresh(machine);
    const line = machine.database.view.line(storeHash("p"));
    expect(line && entryOf(line).info).toMatchObject({
      references: [],
      sigs: [expect.stringMatching(/^mine-1:/)],
    });
  });
});

test.each([
  ["of its own", "p", [pathOf("r")]],
  ["of what it alone refers to", "q", [pathOf("p"), pathOf("r")]],
])("where the kept build has lost a blob %s the rest is published without it", async (_, name, left) => {
  const store = new MemoryStore();
  await publishTo(store, [{ name: "q", size: 2 ** 21 }], { key: MINE });
  await publishTo(
    store,
    [
      { name: "q", size: 2 ** 21 },
      { ...P("first"), references: ["q"] },
    ],
    { key: MINE },
  );
  await publishTo(store, [{ name: "r", content: "another" }], { key: MINE });
  using machine = party(store);
  await refresh(machine);
  const { parts } = entryOf(machine.database.view.line(storeHash(name)) as EntryLine);
  for (const { blob } of parts) store.blobs.delete(blob);
  const again = [
    P("second"),
    { name: "r", content: "second" },
    { name: "s", references: ["p"] },
    { name: "apart" },
  ];
  const { result } = await publishTo(store, again, { key: MINE });
  expect(result.generation).not.toBeNull();
  expect(result.leftOut.map(({ path }) => path).filter((path) => path !== pathOf("s"))).toEqual(left);
  expect(result.newPaths.map(({ path }) => path)).toContain(pathOf("apart"));
  expect(result.newPaths.some(({ path }) => path === pathOf("s"))).toBe(name === "p");
});

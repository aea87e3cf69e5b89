import { describe, expect, test } from "bun:test";
import { entryOf } from "../../../src/cache/entry.ts";
import { HOLD_TYPE, holdManifest } from "../../../src/cache/manifests.ts";
import { adoptedTag, ROOT_TAG } from "../../../src/cache/tags.ts";
import { NixcacheError } from "../../../src/errors.ts";
import { verifyNarInfo } from "../../../src/nar/signature.ts";
import { publicKeyOf } from "../../../src/nar/signing-key.ts";
import type { Digest } from "../../../src/oci/digest.ts";
import {
  decodeManifest,
  EMPTY_CONFIG,
  IMAGE_CONFIG,
  MEDIA_TYPE_MANIFEST,
} from "../../../src/oci/manifest.ts";
import { adoptV1 } from "../../../src/protocol/adopt.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { Compressor } from "../../../src/publish/nar-file.ts";
import { publish } from "../../../src/publish/publish.ts";
import { silentProgress } from "../../../src/terminal/progress.ts";
import type { Upstream } from "../../../src/upstream/client.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitNames, party, storeHash, type TestParty } from "../../support/protocol.ts";
import { pathOf, type TestPath, testClosure } from "../../support/publish.ts";
import { memoryUpstream } from "../../support/upstream-double.ts";
import { bent, pushV1, V1_KEY, V1_PUBLIC_KEY, type V1Path, v1Path } from "../../support/v1-cache.ts";

const A = v1Path("a");
const B = v1Path("b", ["a", "b"]);
const C = v1Path("c", ["b", "from-nixpkgs"]);
const PATHS = [A, B, C];

async function cacheOf(paths: readonly V1Path[] = PATHS, more: Record<string, unknown> = {}) {
  const store = new MemoryStore();
  const index = await pushV1(store, paths, more);
  store.calls.splice(0);
  store.written.splice(0);
  return { store, index };
}

async function adopt(machine: TestParty, upstreams: readonly Upstream[] = []) {
  await refresh(machine, { list: true });
  return adoptV1(machine, upstreams);
}

/** Names of the paths that whoever has never seen the cache finds, each complete and by both of its names. */
async function readAll(store: MemoryStore, paths: readonly V1Path[]): Promise<string[]> {
  using reader = party(store);
  await refresh(reader, { list: true });
  const { view } = reader.database;
  return paths.flatMap(({ hash, oldUrl, newUrl, digest, fields }) => {
    const line = view.line(hash);
    if (line === undefined) return [];
    const { info, parts } = entryOf(line);
    const located = [oldUrl, newUrl].map((url) => view.nar(url.slice(4))?.parts[0]?.blob);
    expect([info.url, parts[0]?.blob, ...located]).toEqual([newUrl, digest, digest, digest]);
    // Takes its time.
    if (paths.length < 10) expect(verifyNarInfo(info, [publicKeyOf(V1_KEY)])).toBe(true);
    return store.blobs.has(digest) ? [fields.name] : [];
  });
}

const records = ({ database }: TestParty) => database.view.generations().map(({ record }) => record);

async function publishPaths(machine: TestParty, paths: readonly TestPath[], dryRun = false) {
  const { closure, dump, dumped } = testClosure(paths);
  const result = await publish(
    closure,
    { tool: "test", source: "repo main", branch: "main", roots: {} },
    {
      ...machine,
      ...{ upstreams: [], dump, key: undefined, compressor: new Compressor(1, 1), partBytes: 1 << 30 },
      ...{ unitsAtOnce: 1, progress: silentProgress() },
    },
    { dryRun },
  );
  return { result, dumped };
}

describe("adopting", () => {
  test("makes one generation of all, uploads no NAR, and leaves the old tag as it is", async () => {
    const { store, index } = await cacheOf();
    const oldTag = store.tags.get("cache-index");
    using machine = party(store);
    const adoption = await adopt(machine);
    expect(adoption).toMatchObject({ paths: 3, leftOut: 0 });
    expect(store.tagsOf("seg-")).toEqual([`seg-${adoption?.generation}`]);
    expect(store.tags.get("cache-index")).toBe(oldTag as Digest);
    // The index layers of segment and root, and the empty config.
    expect(store.written.length).toBe(3);
    expect(store.written).not.toContain(A.digest);
    expect(
      store.calls.filter((call) => call.startsWith("writeManifest") && !/ (seg-|nixcache-index$)/.test(call)),
    ).toEqual([]);
    expect(machine.warnings).toEqual([]);
    expect(records(machine)).toEqual([
      {
        ...{
          time: expect.any(String),
          tool: expect.stringContaining("nixcache"),
          source: "nixcache-oci",
          selection: "cache-index",
        },
        roots: { [pathOf("c").slice(11)]: pathOf("c") },
        keys: [V1_PUBLIC_KEY],
        ...{ content: expect.any(String), entries: 3, adopted: index },
      },
    ]);
    store.tags.delete("cache-index");
    store.collect();
    expect(await readAll(store, PATHS)).toEqual(["a", "b", "c"]);
  });

  test("is done once: readers and the next run need the old index no more", async () => {
    const { store, index } = await cacheOf();
    using machine = party(store);
    await adopt(machine);
    expect(machine.database.view.v1Layer()).toBeUndefined();
    store.calls.splice(0);
    expect(await adopt(machine)).toBeUndefined();
    expect(await readAll(store, PATHS)).toEqual(["a", "b", "c"]);
    expect(
      store.calls.filter(
        (call) => call.includes(index) || call.startsWith("write") || call.startsWith("statBlob"),
      ),
    ).toEqual([]);
  });

  test("an index without entries is adopted, too", async () => {
    const { store } = await cacheOf([], { gc_roots: [], public_key: "" });
    using machine = party(store);
    expect(await adopt(machine)).toMatchObject({ paths: 0, leftOut: 0 });
    expect(records(machine)).toMatchObject([{ keys: [], roots: {}, entries: 0 }]);
    expect(await adopt(machine)).toBeUndefined();
  });

  test("there is nothing to adopt in a cache of ours, or in none", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    expect(await adopt(machine)).toBeUndefined();
    await commitNames(machine, ["own"]);
    expect(await adopt(machine)).toBeUndefined();
    expect(store.tagsOf("seg-").length).toBe(1);
  });

  test("many NARs are held while they are looked for, 399 at a time", async () => {
    const many = Array.from({ length: 1000 }, (_, index) => v1Path(`many-${index}`));
    for (const strict of [true, false]) {
      const { store } = await cacheOf(many);
      store.strictness = strict ? "strict" : "unknown";
      store.refusesMissing = strict;
      let held: number | undefined;
      const configs: string[] = [EMPTY_CONFIG.digest, IMAGE_CONFIG.digest];
      store.before = (call, subject) => {
        if (call === "writeBlob" && !configs.includes(subject)) held ??= store.tagsOf("hold-").length;
      };
      using machine = party(store);
      expect(await adopt(machine)).toMatchObject({ paths: 1000 });
      // Before the first thing that the commit uploads: minutes may have passed by then.
      expect(held).toBe(2);
      const manifests = [...store.manifests.values()].map(({ bytes }) => decodeManifest(bytes, "test"));
      for (const { artifactType, layers } of manifests)
        if (artifactType === HOLD_TYPE) expect(layers.length).toBeLessThanOrEqual(400);
      store.collect();
      expect((await readAll(store, many)).length).toBe(1000);
    }
  });
});

describe("what is broken is left out with what needs it, and listed", () => {
  const has = (names: readonly string[], fails = false): Upstream & { asked: string[] } => {
    const asked: string[] = [];
    const narinfo = async (hash: string) => {
      asked.push(hash);
      if (fails) throw new NixcacheError("unreachable", "no answer");
      return names.map(storeHash).includes(hash) ? "StorePath: …" : undefined;
    };
    return { ...memoryUpstream("https://up.example", narinfo), asked };
  };

  const D = v1Path("d", ["c"]);
  const OTHER = v1Path("other");
  const all = [A, B, C, D, OTHER];

  test.each<[string, V1Path, RegExp]>([
    ["a NAR that is gone", B, /its NAR sha256:\S+ is not there any more/],
    ["an entry that cannot be read", bent(B, () => ({ nar_digest: 5 })), /expected a digest/],
    [
      "a NAR of another size",
      bent(B, ({ narinfo }) => ({ nar_size: 999, narinfo: narinfo.replace(/FileSize: .*\n/, "") })),
      /has \d+ bytes, expected 999/,
    ],
  ])("%s", async (_, broken, reason) => {
    const { store } = await cacheOf(all.map((path) => (path === B ? broken : path)));
    if (broken === B) store.blobs.delete(B.digest);
    using machine = party(store);
    expect(await adopt(machine, [has([])])).toMatchObject({ paths: 2, leftOut: 3 });
    const [warning = ""] = machine.warnings.slice(-1);
    expect(warning).toMatch(/^cache-index of memory: 3 of 5 paths are left out: /);
    expect(warning).toMatch(reason);
    expect(warning).toContain(`${pathOf("c")}" (it refers to ${storeHash("b")}, which is left out)`);
    expect(warning).toContain(`${pathOf("d")}" (it refers to ${storeHash("c")}, which is left out)`);
    expect(await readAll(store, all)).toEqual(["a", "other"]);
  });

  test("not what refers to something that an upstream has; one that cannot be asked may have it", async () => {
    for (const [upstream, left] of [
      [has(["b"]), 1],
      [has([], true), 1],
      [has(["c"]), 2],
      [has(["a", "other"]), 3],
    ] as const) {
      const { store } = await cacheOf(all);
      store.blobs.delete(B.digest);
      using machine = party(store);
      expect(await adopt(machine, [upstream])).toMatchObject({ leftOut: left });
      // What the index never had is an upstream's, and what nothing refers to does not matter.
      expect(upstream.asked.sort()).toEqual([...(left === 1 ? ["b"] : ["b", "c"])].map(storeHash).sort());
    }
  });

  test("not what refers to something that a generation of ours has", async () => {
    const { store } = await cacheOf(all);
    store.blobs.delete(B.digest);
    using machine = party(store);
    await commitNames(machine, ["b"]);
    expect(await adopt(machine, [has([])])).toMatchObject({ paths: 4, leftOut: 1 });
  });

  test("all of it: the generation is empty, and publishes find nothing that is there no more", async () => {
    const { store } = await cacheOf();
    store.collect();
    for (const { digest } of PATHS) store.blobs.delete(digest);
    using machine = party(store);
    const { result, dumped } = await publishPaths(machine, [{ name: "a" }, { name: "b", references: ["a"] }]);
    expect(result).toMatchObject({ adopted: { paths: 0, leftOut: 3 }, paths: { uploaded: 2, restated: 0 } });
    expect(dumped).toEqual(["a", "b"]);
  });

  test("a NAR that vanishes between the look and the commit", async () => {
    const { store } = await cacheOf(all);
    store.before = (call, subject) => {
      if (call === "writeManifest" && subject.startsWith("seg-")) store.blobs.delete(C.digest);
    };
    using machine = party(store);
    expect(await adopt(machine, [has([])])).toMatchObject({ paths: 3, leftOut: 2 });
    expect(await readAll(store, all)).toEqual(["a", "b", "other"]);
  });
});

describe("publish", () => {
  test("adopts first, restates what was there, and uploads the rest", async () => {
    const { store } = await cacheOf();
    using machine = party(store);
    const wanted = [{ name: "a" }, { name: "b", references: ["a", "b"] }, { name: "new", references: ["b"] }];
    const { result, dumped } = await publishPaths(machine, wanted);
    expect(result).toMatchObject({ adopted: { paths: 3, leftOut: 0 }, paths: { restated: 2, uploaded: 1 } });
    expect(dumped).toEqual(["new"]);
    expect(store.tagsOf("seg-").length).toBe(2);
    store.collect();
    expect(await readAll(store, PATHS)).toEqual(["a", "b", "c"]);
    const again = await publishPaths(machine, wanted);
    expect(again.result.adopted).toBeUndefined();
  });

  test("in a dry run adopts nothing, and knows what is there", async () => {
    const { store } = await cacheOf();
    using machine = party(store);
    const { result } = await publishPaths(machine, [{ name: "a" }, { name: "new" }], true);
    expect(result).toMatchObject({ paths: { restated: 1, uploaded: 1 } });
    expect(result.adopted).toBeUndefined();
    expect(store.calls.filter((call) => call.startsWith("write"))).toEqual([]);
  });

  test("of a path with another NAR puts its own beside the old one: each URL keeps its bytes", async () => {
    const unsigned = bent(A, ({ narinfo }) => ({ narinfo: narinfo.replace(/^Sig: .*\n/m, "") }));
    const { store } = await cacheOf([unsigned]);
    using machine = party(store);
    machine.host.time = Date.UTC(2026, 5, 1);
    await publishPaths(machine, [{ name: "a", content: "rebuilt" }]);
    const { view } = machine.database;
    await refresh(machine, { list: true });
    expect(entryOf(view.line(A.hash) as never).info.compression).toBe("zstd");
    for (const url of [A.oldUrl, A.newUrl]) expect(view.nar(url.slice(4))?.parts[0]?.blob).toBe(A.digest);
  });
});

describe("an index that changes after it was adopted", () => {
  test("is read as it is, and adopted again as a newer generation: only new NARs are looked for", async () => {
    const { store } = await cacheOf([A, B]);
    using machine = party(store);
    await adopt(machine);
    const index = await pushV1(store, [A, C], { public_key: "" });
    await refresh(machine);
    expect(machine.database.view.narinfo(C.hash)).toBeDefined();
    store.calls.splice(0);
    machine.host.time += 3_600_000;
    expect(await adopt(machine)).toMatchObject({ paths: 2, leftOut: 0 });
    expect(store.calls.filter((call) => call.startsWith("statBlob") && call.includes(A.digest))).toEqual([]);
    expect(
      records(machine).map(({ source, selection, adopted }) => [source, selection, adopted === index]),
    ).toEqual([
      ["nixcache-oci", "cache-index", false],
      ["nixcache-oci", "cache-index", true],
    ]);
    expect(await readAll(store, PATHS)).toEqual(["a", "b", "c"]);
  });

  test("names the same NAR after it has vanished from the first: it is left out", async () => {
    const { store } = await cacheOf([A]);
    using machine = party(store);
    await adopt(machine);
    await pushV1(store, [A, C]);
    store.blobs.delete(A.digest);
    expect(await adopt(machine)).toMatchObject({ paths: 1, leftOut: 1 });
  });
});

describe("whoever adopts at the same moment, or is killed", () => {
  test("two at once lose nothing", async () => {
    for (let round = 0; round < 10; round++) {
      const { store } = await cacheOf();
      using one = party(store);
      using two = party(store);
      // The other one goes ahead while this one waits at a request.
      let left = round * 2;
      store.before = async () => {
        if (left-- === 0) await adopt(two);
      };
      await adopt(one);
      store.before = () => {};
      expect(store.tagsOf("seg-").length).toBeGreaterThanOrEqual(1);
      expect(store.written.filter((digest) => PATHS.some((path) => path.digest === digest))).toEqual([]);
      store.tags.delete("cache-index");
      store.collect();
      expect(await readAll(store, PATHS)).toEqual(["a", "b", "c"]);
    }
  });

  test("one that comes while another looks for NARs leaves it to that one", async () => {
    const { store } = await cacheOf();
    using one = party(store);
    using two = party(store);
    let first = true;
    store.before = async (call, subject) => {
      if (!first || call !== "statBlob" || subject !== A.digest) return;
      first = false;
      await adopt(two);
    };
    expect(await adopt(one)).toBeUndefined();
    expect(store.tagsOf("seg-").length).toBe(1);
    expect(one.database.view.v1Layer()).toBeUndefined();
  });

  test.each([
    ["strict", false],
    ["lax", true],
  ])(
    "killed at any request to a %s registry: all is served meanwhile, and the next run finishes",
    async (_, lax) => {
      class Killed extends Error {}
      const many = [...PATHS, ...Array.from({ length: 400 }, (_, index) => v1Path(`k-${index}`))];
      let kills = 0;
      for (let at = 0; ; at += at < 12 ? 1 : 127) {
        const { store } = await cacheOf(many);
        store.strictness = lax ? "unknown" : "strict";
        store.refusesMissing = !lax;
        let left = at;
        store.before = () => {
          if (left-- <= 0) throw new Killed();
        };
        using victim = party(store);
        const killed = await adopt(victim).then(
          () => false,
          (error) => {
            if (error instanceof Killed) return true;
            throw error;
          },
        );
        store.before = () => {};
        expect((await readAll(store, many)).length).toBe(403);
        using next = party(store);
        await adopt(next);
        await fold(next);
        expect(store.tagsOf("seg-").length).toBeLessThanOrEqual(2);
        expect(store.written.filter((digest) => many.some((path) => path.digest === digest))).toEqual([]);
        store.tags.delete("cache-index");
        store.collect();
        expect((await readAll(store, many)).length).toBe(403);
        if (!killed) break;
        kills++;
      }
      expect(kills).toBeGreaterThan(13);
    },
    60_000,
  );

  test("a list that is stale lacks the word that the index was adopted: the reader asks for it", async () => {
    const { store, index } = await cacheOf();
    using machine = party(store);
    await commitNames(machine, ["own"]);
    await store.writeManifest(
      adoptedTag(index),
      MEDIA_TYPE_MANIFEST,
      holdManifest([], { created: "", nonce: "" }),
    );
    store.hidden.add(adoptedTag(index));
    await refresh(machine, { list: true });
    expect(machine.database.view.narinfo(A.hash)).toBeUndefined();
  });

  test("a list that is stale shows neither the generation nor its tag: nothing is adopted twice", async () => {
    const { store, index } = await cacheOf();
    using machine = party(store);
    await adopt(machine);
    await store.writeManifest(
      adoptedTag(index),
      MEDIA_TYPE_MANIFEST,
      holdManifest([], { created: "", nonce: "" }),
    );
    for (const tag of store.tags.keys()) if (tag !== "cache-index" && tag !== ROOT_TAG) store.hidden.add(tag);
    store.tags.delete(ROOT_TAG);
    using late = party(store);
    expect(await adopt(late)).toBeUndefined();
    expect(store.tagsOf("seg-").length).toBe(1);
  });
});

/** One cache into another, over stores in memory: what moves, in which order, and what becomes of it when it breaks. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { allParts, filesOf } from "../../../src/cache/entry.ts";
import { holdsFor, indexLayerOf, MAX_BLOBS } from "../../../src/cache/manifests.ts";
import type { PublishRecord } from "../../../src/cache/record.ts";
import { generationId, ROOT_TAG } from "../../../src/cache/tags.ts";
import { realHost } from "../../../src/context.ts";
import { type CopyReport, copyCache } from "../../../src/copy/copy.ts";
import { NixcacheError } from "../../../src/errors.ts";
import { collectGarbage } from "../../../src/gc/gc.ts";
import type { Digest } from "../../../src/oci/digest.ts";
import { openLayout } from "../../../src/oci/layout.ts";
import { decodeManifest, EMPTY_CONFIG } from "../../../src/oci/manifest.ts";
import type { Store } from "../../../src/oci/store.ts";
import { endGenerations, sweep } from "../../../src/protocol/end.ts";
import { foldOrWarn } from "../../../src/protocol/fold.ts";
import { GenerationWriter } from "../../../src/protocol/generation.ts";
import { readLayer } from "../../../src/protocol/layer-blob.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { cloneStore, MemoryStore, withMethods } from "../../support/memory-store.ts";
import {
  commitNames,
  party,
  type TestHost,
  type TestParty,
  testEntry,
  testRecord,
  viewOf,
} from "../../support/protocol.ts";
import { withDouble } from "../../support/registry-double.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { openDouble } from "../oci/network.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const NAMES = ["a", "b", "c", "d", "shared"];
const MAIN: Partial<PublishRecord> = { source: "repo main", branch: "main", selection: "packages" };
const SILENT = { planned() {}, moved() {} };

function copy(from: Store, to: TestParty, only?: readonly string[]): Promise<CopyReport> {
  return copyCache({ ...to, source: from, progress: SILENT }, only);
}

/** A generation whose publisher was so slow that its blobs are in holds, one in each. */
async function commitHeld(publisher: TestParty, names: readonly string[], more = MAIN): Promise<string> {
  const writer = new GenerationWriter(publisher, {});
  const entries = names.map((name) => testEntry(name));
  for (const { blob } of entries) {
    if ((await publisher.store.statBlob(blob.digest)) === undefined) await publisher.store.writeBlob(blob);
    await writer.uploaded(blob);
    await writer.holdAll();
  }
  const lines = entries.map(({ line }) => line);
  const blobs = entries.map(({ blob: { digest, size } }) => ({ digest, size }));
  const result = await writer.commit(testRecord(lines, publisher.host, more), lines, blobs);
  if (!("committed" in result)) throw new Error("not committed");
  return result.committed;
}

/** Three generations: two that share a blob, and one with holds. */
async function fill(publisher: TestParty): Promise<string[]> {
  const names = [await commitNames(publisher, ["a", "shared"], MAIN)];
  publisher.host.time += HOUR;
  names.push(await commitHeld(publisher, ["b", "c", "shared"]));
  publisher.host.time += HOUR;
  names.push(await commitNames(publisher, ["d", "shared"], { ...MAIN, source: "repo next" }));
  await foldOrWarn(publisher);
  return names;
}

/** The tags of generations, with the digests under them. */
function tagged(store: MemoryStore, ...prefixes: string[]): [string, Digest][] {
  return [...store.tags].filter(([tag]) => prefixes.some((prefix) => tag.startsWith(prefix))).sort();
}

/** Fails unless a collector would leave every blob that the entries of live segments name. Answers the segments. */
async function checkWhole(store: MemoryStore): Promise<string[]> {
  const kept = new Set<Digest>();
  const dead = new Set(store.tagsOf("dead-").map((tag) => tag.slice(-16)));
  const live = store.tagsOf("seg-").filter((tag) => !dead.has(tag.slice(-16)));
  for (const { bytes } of store.manifests.values()) {
    const { config, layers } = decodeManifest(bytes, "kept");
    for (const { digest } of [config, ...layers]) kept.add(digest);
  }
  for (const tag of live) {
    const index = indexLayerOf(layersOf(store, tag), tag);
    const content = store.blobs.get(index.digest);
    if (content === undefined) throw new Error(`${tag}: its index layer is gone`);
    await readLayer({ ...index, content }, tag, ({ rest }) => {
      for (const { blob } of allParts(filesOf(rest, tag))) {
        if (!store.blobs.has(blob)) throw new Error(`${tag}: ${blob} is gone`);
        if (!kept.has(blob)) throw new Error(`${tag}: nothing names ${blob}`);
      }
    });
  }
  return live;
}

function layersOf(store: MemoryStore, tag: string) {
  return decodeManifest(store.manifests.get(store.tags.get(tag) as Digest)?.bytes as Uint8Array, tag);
}

async function seen(store: MemoryStore, host?: TestHost): Promise<string[]> {
  using reader = party(store, host);
  await refresh(reader, { list: true });
  return viewOf(reader, NAMES);
}

const writes = (store: MemoryStore) => store.calls.filter((call) => /^(write|delete)/.test(call));

/** Blobs that were written more than once. */
function writtenTwice(store: MemoryStore): Digest[] {
  return store.written.filter((digest, at) => store.written.indexOf(digest) !== at);
}

describe("a copy", () => {
  test("has the same manifests under the same tags, the root too, and serves the same", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    const names = await fill(publisher);
    const before = writes(from).length;
    using copier = party(to);
    const report = await copy(from, copier);
    expect(tagged(from, "hold-").length).toBe(3);
    const copied = new Set(tagged(from, "seg-", "hold-", ROOT_TAG).map(([tag]) => tag));
    expect([...to.tags].filter(([tag]) => copied.has(tag)).sort()).toEqual(
      tagged(from, "seg-", "hold-", ROOT_TAG),
    );
    expect(writes(from).length).toBe(before);
    expect(await checkWhole(to)).toEqual(names.map((name) => `seg-${name}`));
    expect(await seen(to)).toEqual(NAMES);
    expect(report).toMatchObject({ copied: names.toReversed(), present: 0, over: [], gone: [], damaged: [] });
    // Five NARs, three index layers, the root's layer, and the empty config.
    expect(report.blobs).toMatchObject({ sent: 10, mounted: 0, present: 0 });
    expect(report.blobs.bytesSent).toBe(
      [...from.blobs.values()].reduce((sum, { length }) => sum + length, 0),
    );
    expect(writtenTwice(to)).toEqual([]);
  });

  test("needs no other generation's layers read there: the source's root will do", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    await fill(publisher);
    using copier = party(to);
    await copy(from, copier);
    const reads = to.calls.filter((call) => call.startsWith("readBlob"));
    expect(reads.length).toBe(1);
    expect(to.tags.get(ROOT_TAG)).toBe(from.tags.get(ROOT_TAG) as Digest);
  });

  test("of a source without a root, or with one that does not fit, gets its own", async () => {
    for (const root of ["none", "stale"]) {
      const [from, to] = [new MemoryStore(), new MemoryStore()];
      using publisher = party(from);
      await fill(publisher);
      if (root === "none") from.tags.delete(ROOT_TAG);
      else
        await endGenerations({ ...publisher, host: later(publisher.host, 3 * DAY) }, [
          (await commitNames(publisher, ["e"], MAIN)) as string,
        ]);
      using copier = party(to);
      await copy(from, copier);
      expect(await seen(to)).toEqual(NAMES);
      using reader = party(to);
      await refresh(reader, { list: true });
      expect(reader.database.view.layers().every(({ position }) => position !== null)).toBe(true);
    }
  });

  test("that is repeated brings what is new, and asks for no blob that went along before", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    await fill(publisher);
    using copier = party(to);
    await copy(from, copier);
    const before = to.calls.length;
    const again = await copy(from, copier);
    expect(again).toMatchObject({ copied: [], present: 3, blobs: { sent: 0, present: 0 } });
    expect(to.calls.slice(before).filter((call) => /^(write|statBlob)/.test(call))).toEqual([]);

    publisher.host.time += HOUR;
    const name = await commitNames(publisher, ["e", "shared"], MAIN);
    const more = await copy(from, copier);
    // The NAR of "e" and the index layer; its config and "shared" are there.
    expect(more).toMatchObject({ copied: [name], present: 3, blobs: { sent: 2, present: 2 } });
    expect((await checkWhole(to)).length).toBe(4);
    expect(writtenTwice(to)).toEqual([]);
  });

  test("of one generation that is named is that alone", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    const [, second = "", third = ""] = await fill(publisher);
    using copier = party(to);
    expect(await copy(from, copier, [`seg-${second}`])).toMatchObject({ copied: [second] });
    expect(await seen(to)).toEqual(["b", "c", "shared"]);
    from.hidden.add(`seg-${third}`);
    expect(await copy(from, copier, [second, third, third])).toMatchObject({ copied: [third], present: 1 });
    expect(await checkWhole(to)).toEqual([`seg-${second}`, `seg-${third}`]);
  });

  test("leaves out what is over at the source, and ends nothing", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    const [first = "", second = "", third = ""] = await fill(publisher);
    using copier = party(to, publisher.host);
    await copy(from, copier, [first]);
    publisher.host.time += 3 * DAY;
    await endGenerations(publisher, [first]);
    expect(await copy(from, copier)).toMatchObject({ copied: [third, second], present: 0 });
    expect(to.tagsOf("dead-")).toEqual([]);
    expect(await checkWhole(to)).toEqual([first, second, third].map((name) => `seg-${name}`));
  });

  test("does not bring back what a gc of the destination has ended", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    const [first = "", second = "", third = ""] = await fill(publisher);
    using copier = party(to, publisher.host);
    await copy(from, copier, [first]);
    publisher.host.time += 3 * DAY;
    await endGenerations(copier, [first]);
    expect(await copy(from, copier)).toMatchObject({ copied: [third, second], over: [first] });
    expect(await seen(to)).toEqual(["b", "c", "d", "shared"]);
  });

  test("finds holds that the source's list does not show", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    const [, second] = await fill(publisher);
    const [, middle, last] = from.tagsOf("hold-");
    for (const tag of [middle, last]) from.hidden.add(tag as string);
    using copier = party(to);
    await copy(from, copier, [second as string]);
    expect(to.tagsOf(`hold-${second}`)).toEqual(from.tagsOf("hold-"));
    await checkWhole(to);
  });

  test("puts holds before the segment, and a generation's blobs before both", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    const [, second] = await fill(publisher);
    using copier = party(to, publisher.host);
    await copy(from, copier, [second as string]);
    const blobs = new Set(NAMES.map((name) => `writeBlob ${testEntry(name).blob.digest}`));
    const lastBlob = writes(to).findLastIndex((call) => blobs.has(call));
    const tags = writes(to).filter((call) => call.startsWith("writeManifest"));
    const [first] = tags;
    expect(lastBlob).toBeLessThan(writes(to).indexOf(first as string));
    const own = from.tagsOf("hold-").map((tag) => `writeManifest ${tag}`);
    expect(tags.slice(0, 4)).toEqual([...own, `writeManifest seg-${second}`]);
  });

  test("of an old generation has holds of a name of now as well, which gc spares while it is there", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    const [, second = ""] = await fill(publisher);
    publisher.host.time += 6 * DAY;
    using copier = party(to, publisher.host);
    await copy(from, copier, [second]);
    const tags = writes(to).filter((call) => call.startsWith("writeManifest"));
    const [own = "", ...rest] = tags.map((call) => call.split(" ")[1] as string);
    expect(rest.slice(0, 4)).toEqual([...from.tagsOf("hold-"), `seg-${second}`]);
    expect(holdsFor(layersOf(to, own))).toBe(second);
    copier.host.time += 8 * DAY;
    await sweep(copier);
    expect(to.tags.has(own)).toBe(true);
    const policy = { retentionMs: 0, keepLast: 1, keepBranches: [], dropBranches: ["main"] };
    await collectGarbage(copier, policy);
    copier.host.time += 2 * DAY;
    await collectGarbage(copier, policy);
    expect([...to.tags.keys()]).toEqual([ROOT_TAG]);
  });

  test("of hundreds of blobs is held on the way, all of them once", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    const many = Array.from({ length: 2 * MAX_BLOBS + 50 }, (_, i) => `path-${i}`);
    const name = await commitNames(publisher, many, MAIN);
    // The same blobs again: a generation more costs no holds of our own.
    publisher.host.time += HOUR;
    await commitNames(publisher, [...many, "e"], MAIN);
    using copier = party(to, publisher.host);
    await copy(from, copier);
    const [ours, theirs] = [to.tagsOf("hold-"), new Set(from.tagsOf("hold-"))];
    expect(theirs.size).toBe(4);
    expect(ours.filter((tag) => theirs.has(tag)).length).toBe(4);
    expect(ours.filter((tag) => !theirs.has(tag)).length).toBe(2);
    expect(await checkWhole(to)).toContain(`seg-${name}`);
    // They go a week later, and nothing with them.
    copier.host.time += 9 * DAY;
    await sweep(copier);
    expect(new Set(to.tagsOf("hold-"))).toEqual(theirs);
    to.collect();
    await checkWhole(to);
  });
});

describe("a copy that cannot have everything", () => {
  test("leaves out what is damaged at the source, and brings the rest", async () => {
    for (const damage of ["gone", "other bytes", "index layer"] as const) {
      const [from, to] = [new MemoryStore(), new MemoryStore()];
      using publisher = party(from);
      const [first = "", second = "", third = ""] = await fill(publisher);
      const { digest } = testEntry("c").blob;
      const index = layersOf(from, `seg-${second}`).layers[0]?.digest as Digest;
      if (damage === "gone") from.blobs.delete(digest);
      if (damage === "other bytes") from.blobs.set(digest, new TextEncoder().encode("compressed NAR of x"));
      if (damage === "index layer") from.blobs.delete(index);
      using copier = party(to);
      const report = await copy(from, copier);
      expect(report).toMatchObject({ copied: [third, first], damaged: [{ generation: second }] });
      expect(report.damaged[0]?.reason).toContain(damage === "index layer" ? index : "sha256:");
      expect(await checkWhole(to)).toEqual([`seg-${first}`, `seg-${third}`]);
      expect(to.blobs.has(digest)).toBe(false);
    }
  });

  test("stops at damage of the destination, which is none of the source's", async () => {
    for (const failing of ["statBlob", "writeBlob", "writeManifest", "statManifest"]) {
      const [from, to] = [new MemoryStore(), new MemoryStore()];
      using publisher = party(from);
      await fill(publisher);
      to.before = (call) => {
        if (call === failing) throw new NixcacheError("corrupt", "index.json is damaged");
      };
      using copier = party(to);
      const error = await copy(from, copier).catch((error) => error);
      expect([failing, error.code, error.message]).toEqual([failing, "corrupt", "index.json is damaged"]);
      expect(error.hint).toBeUndefined();
    }
  });

  test("gives no file that has changed its old name, wherever it goes to", async () => {
    const { digest } = testEntry("c").blob;
    const expectLeftOut = async (folder: string, to: Store, second: string) => {
      using copier = party(to);
      const report = await copy(openLayout(join(folder, "from"), { host: realHost }), copier);
      expect(report.damaged.map(({ generation }) => generation)).toEqual([second]);
      expect(await to.statBlob(digest)).toBeUndefined();
    };
    using folder = temporaryFolder();
    const from = openLayout(join(folder.path, "from"), { host: realHost });
    using publisher = party(from);
    const [, second = ""] = await fill(publisher);
    writeFileSync(from.blobFile?.(digest) as string, "compressed NAR of x");
    await expectLeftOut(folder.path, openLayout(join(folder.path, "to"), { host: realHost }), second);
    await expectLeftOut(folder.path, new MemoryStore(), second);
    await withDouble((double) =>
      expectLeftOut(folder.path, openDouble(double, { password: "ghp_secret" }), second),
    );
  });

  test("holds by itself what the source has lost the hold of", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    const [, second = ""] = await fill(publisher);
    const [, hold = ""] = from.tagsOf("hold-");
    from.manifests.delete(from.tags.get(hold) as Digest);
    from.tags.delete(hold);
    using copier = party(to, publisher.host);
    expect((await copy(from, copier)).copied).toContain(second);
    copier.host.time += 8 * DAY;
    await sweep(copier);
    to.collect();
    expect((await checkWhole(to)).length).toBe(3);
  });

  test("passes over what ends at the source meanwhile", async () => {
    for (const when of ["before it is read", "while its blobs are"]) {
      const [from, to] = [new MemoryStore(), new MemoryStore()];
      using publisher = party(from);
      const [first = "", second = "", third = ""] = await fill(publisher);
      let gone = false;
      from.before = (call, subject) => {
        const isTime =
          when === "before it is read"
            ? call === "readManifest" && subject === `seg-${second}`
            : call === "readBlob" && subject === testEntry("c").blob.digest;
        if (!isTime || gone) return;
        gone = true;
        for (const [tag, digest] of tagged(from, "seg-", "hold-")) {
          if (!tag.includes(generationId(second))) continue;
          from.tags.delete(tag);
          from.manifests.delete(digest);
        }
        from.collect();
      };
      using copier = party(to);
      expect(await copy(from, copier)).toMatchObject({ copied: [third, first], gone: [second], damaged: [] });
      expect(await checkWhole(to)).toEqual([`seg-${first}`, `seg-${third}`]);
    }
  });

  test.each<[string, (from: MemoryStore, publisher: TestParty) => Promise<unknown>, RegExp, string[] | null]>(
    [
      ["an empty cache", async () => {}, /memory has no generations/, null],
      [
        "a cache of the old format",
        async (from) => from.tags.set("cache-index", EMPTY_CONFIG.digest),
        /it is a cache of nixcache-oci/,
        null,
      ],
      [
        "a cache of which everything is over",
        async (_, publisher) => {
          const name = await commitNames(publisher, ["a"]);
          publisher.host.time += 3 * DAY;
          await endGenerations(publisher, [name]);
        },
        /all generations of memory are over/,
        null,
      ],
      ["no name of a generation", async () => {}, /--generation: got "x"/, ["x"]],
      [
        "a generation that is not there",
        async () => {},
        /memory has no generation 2026/,
        ["20260101t000000z-0123456789abcdef"],
      ],
    ],
  )("says so of %s, and writes nothing", async (_, prepare, message, only) => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    await prepare(from, publisher);
    using copier = party(to);
    await expect(copy(from, copier, only ?? undefined)).rejects.toThrow(message);
    expect(writes(to)).toEqual([]);
  });

  test("says so of a generation that is over", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    const name = await commitNames(publisher, ["a"]);
    publisher.host.time += 3 * DAY;
    await endGenerations(publisher, [name]);
    using copier = party(to);
    await expect(copy(from, copier, [name])).rejects.toThrow(`the generation ${name} of memory is over`);
  });

  test("stops when the destination refuses, and says why", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    await fill(publisher);
    to.before = (call) => {
      if (call === "writeBlob") throw new Error("disk full");
    };
    using copier = party(to);
    await expect(copy(from, copier)).rejects.toThrow("disk full");
    expect(to.tagsOf("seg-")).toEqual([]);
  });
});

describe("a destination that loses things", () => {
  test("gets blobs again that it collected before they were named", async () => {
    for (const kind of ["strict", "lax"]) {
      const [from, to] = [new MemoryStore(), new MemoryStore()];
      if (kind === "lax") [to.strictness, to.refusesMissing] = ["unknown", false];
      using publisher = party(from);
      await fill(publisher);
      let collected = false;
      to.before = (call, subject) => {
        if (call !== "writeManifest" || !/^(seg|hold)-/.test(subject) || collected) return;
        collected = true;
        to.collect();
      };
      using copier = party(to);
      await copy(from, copier);
      expect(collected).toBe(true);
      expect((await checkWhole(to)).length).toBe(3);
    }
  });

  test("gets a hold again that it lost later, with the next copy", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    await fill(publisher);
    publisher.host.time += 10 * DAY;
    using copier = party(to, publisher.host);
    await copy(from, copier);
    const [hold = ""] = from.tagsOf("hold-");
    await to.deleteManifest(to.tags.get(hold) as Digest);
    // A gc that looked before the commit may do that after it: the holds of a name of now keep the blobs.
    copier.host.time += 8 * DAY;
    await sweep(copier);
    to.collect();
    await checkWhole(to);
    expect((await copy(from, copier)).copied.length).toBe(1);
    expect(to.tags.get(hold)).toBe(from.tags.get(hold) as Digest);
    expect(writtenTwice(to)).toEqual([]);
  });

  test("and accepts manifests with missing blobs: everything is held and asked for before the commit (R6)", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    [to.strictness, to.refusesMissing] = ["unknown", false];
    using publisher = party(from);
    const [first] = await fill(publisher);
    using copier = party(to);
    await copy(from, copier, [first as string]);
    const [hold = ""] = to.tagsOf("hold-");
    const named = layersOf(to, `seg-${first}`);
    const held = new Set(layersOf(to, hold).layers.map(({ digest }) => digest));
    for (const { digest } of named.layers) expect(held.has(digest)).toBe(true);
    const committed = to.calls.indexOf(`writeManifest seg-${first}`);
    const asked = to.calls.slice(to.calls.indexOf(`writeManifest ${hold}`), committed);
    for (const { digest } of named.layers) expect(asked).toContain(`statBlob ${digest}`);
  });

  test("to its own gc at any request of ours is whole in the end, however old what is copied", async () => {
    const filled = new MemoryStore();
    using publisher = party(filled);
    const names = await fill(publisher);
    const start = publisher.host.time + 30 * DAY;
    for (let at = 1; ; at++) {
      const [from, to] = [cloneStore(filled), new MemoryStore()];
      publisher.host.time = start;
      using copier = party(to, publisher.host);
      using collector = party(to, publisher.host);
      let left = at;
      to.before = async () => {
        if (--left !== 0) return;
        // It takes the holds of generations that are on their way for left over.
        await sweep(collector);
        to.collect();
      };
      await copy(from, copier);
      to.before = () => {};
      expect(await checkWhole(to)).toEqual(names.map((name) => `seg-${name}`));
      for (const tag of from.tagsOf("hold-")) expect(to.tags.get(tag)).toBe(from.tags.get(tag) as Digest);
      // What our own holds have kept meanwhile is kept by the copied ones.
      copier.host.time += 9 * DAY;
      await sweep(collector);
      to.collect();
      await checkWhole(to);
      if (left > 0) {
        expect(at).toBeGreaterThan(30);
        break;
      }
    }
  }, 60_000);
});

class Killed extends Error {}

describe("a copy that was killed", () => {
  test.each(["strict", "lax"])(
    "at any request goes on with the next run, and uploads nothing twice (%s)",
    async (kind) => {
      const filled = new MemoryStore();
      using publisher = party(filled);
      const names = await fill(publisher);
      const start = publisher.host.time;
      for (let at = 1; ; at++) {
        const [from, to] = [cloneStore(filled), new MemoryStore()];
        const isOld = at % 3 === 0;
        publisher.host.time = start + (isOld ? 10 * DAY : 0);
        if (kind === "lax") [to.strictness, to.refusesMissing] = ["unknown", false];
        let left = at;
        const kill = () => {
          if (--left <= 0) throw new Killed();
        };
        [from.before, to.before] = [kill, kill];
        {
          using copier = party(to, publisher.host);
          await copy(from, copier).catch((error) => {
            if (!(error instanceof Killed)) throw error;
          });
        }
        [from.before, to.before] = [() => {}, () => {}];
        // Whatever was committed is whole, and stays so when the rest is collected.
        await checkWhole(to);
        // At every other point what nothing names is collected.
        const collects = at % 2 === 0;
        if (collects) {
          to.collect();
          await checkWhole(to);
        }
        publisher.host.time += HOUR;
        using next = party(to, publisher.host);
        await copy(from, next);
        expect(await checkWhole(to)).toEqual(names.map((name) => `seg-${name}`));
        expect(viewOf(next, NAMES)).toEqual(NAMES);
        const nars = new Set(NAMES.map((name) => testEntry(name).blob.digest));
        if (!collects) expect(writtenTwice(to).filter((digest) => nars.has(digest))).toEqual([]);
        // A week later only what belongs to what was copied is left.
        next.host.time += 9 * DAY;
        await sweep(next);
        const others = to.tagsOf("hold-").filter((tag) => !from.tags.has(tag));
        for (const tag of others) expect(names).toContain(holdsFor(layersOf(to, tag)) as string);
        if (!isOld) expect(others).toEqual([]);
        to.collect();
        await checkWhole(to);
        if (left > 0) {
          expect(at).toBeGreaterThan(40);
          break;
        }
      }
    },
    120_000,
  );
});

describe("mounts", () => {
  const mounting = (from: MemoryStore, to: MemoryStore, mounts: (digest: Digest) => boolean) => {
    const asked: Digest[] = [];
    const mountBlob = async (digest: Digest) => {
      asked.push(digest);
      const bytes = from.blobs.get(digest);
      if (!mounts(digest) || bytes === undefined) return false;
      to.blobs.set(digest, bytes);
      return true;
    };
    return { asked, store: withMethods(to, { mountBlob }) };
  };

  test("take the place of every transfer", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    await fill(publisher);
    using copier = party(to);
    const { store } = mounting(from, to, () => true);
    const report = await copy(from, { ...copier, store });
    expect(report.blobs).toMatchObject({ sent: 0, bytesSent: 0, mounted: 10 });
    expect(to.written).toEqual([]);
    expect((await checkWhole(to)).length).toBe(3);
  });

  test("that are refused are uploads, and are not asked for for ever", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    await fill(publisher);
    using copier = party(to);
    const { store, asked } = mounting(from, to, () => false);
    const report = await copy(from, { ...copier, store, concurrency: 1 });
    expect(asked.length).toBe(3);
    expect(report.blobs).toMatchObject({ sent: 10, mounted: 0 });
    expect((await checkWhole(to)).length).toBe(3);
  });

  test("that fail for one blob go on for others", async () => {
    const [from, to] = [new MemoryStore(), new MemoryStore()];
    using publisher = party(from);
    await fill(publisher);
    using copier = party(to);
    const { store, asked } = mounting(from, to, (digest) => digest !== testEntry("c").blob.digest);
    const report = await copy(from, { ...copier, store });
    expect(asked.length).toBe(10);
    expect(report.blobs).toMatchObject({ sent: 1, mounted: 9 });
  });
});

test("the policy of a destination holds for what was copied: gc ends it by its age", async () => {
  const [from, to] = [new MemoryStore(), new MemoryStore()];
  using publisher = party(from);
  const [first = "", second = "", third = ""] = await fill(publisher);
  publisher.host.time += 40 * DAY;
  using copier = party(to, publisher.host);
  await copy(from, copier);
  const policy = { retentionMs: 30 * DAY, keepLast: 1, keepBranches: [], dropBranches: [] };
  const { decisions } = await collectGarbage(copier, policy);
  expect(decisions.filter(({ ends }) => ends).map(({ name }) => name)).toEqual([first]);
  copier.host.time += 2 * DAY;
  await collectGarbage(copier, policy);
  to.collect();
  expect(await checkWhole(to)).toEqual([`seg-${second}`, `seg-${third}`]);
});

function later(host: TestHost, ms: number) {
  return { ...host, now: () => host.time + ms, random: host.random, sleep: host.sleep };
}

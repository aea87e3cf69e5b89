/** What becomes of accepted uploads: batches, generations, restarts, and a store that fails. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { entryOf } from "../../../src/cache/entry.ts";
import { realHost } from "../../../src/context.ts";
import { NixcacheError } from "../../../src/errors.ts";
import { formatNarInfo } from "../../../src/nar/narinfo.ts";
import { type Digest, digestOf } from "../../../src/oci/digest.ts";
import { openLayout } from "../../../src/oci/layout.ts";
import type { Store } from "../../../src/oci/store.ts";
import { readNarFile } from "../../../src/protocol/nar-file.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { MAX_BATCH_PATHS } from "../../../src/receive/batch.ts";
import { Journal } from "../../../src/receive/journal.ts";
import { type Piece, planBlobs } from "../../../src/receive/pieces.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { party } from "../../support/protocol.ts";
import { receiving, type UploadedPath, uploadedPath } from "../../support/receive.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

/** Everything that a reader with an index of its own needs for a path is in the store. */
async function expectCommitted(store: Store, paths: readonly UploadedPath[]): Promise<void> {
  using reader = party(store);
  await refresh(reader, { list: true });
  for (const { hash, file, info, bytes } of paths) {
    expect(reader.database.view.narinfo(hash)).toBe(formatNarInfo(info));
    const parts = reader.database.view.nar(file)?.parts ?? [];
    const chunks = await Array.fromAsync(readNarFile({ parts, fileHash: info.fileHash }, store));
    expect(Buffer.concat(chunks).equals(bytes)).toBe(true);
  }
}

const many = (count: number, size = 700) =>
  Array.from({ length: count }, (_, at) =>
    uploadedPath(`p${at}`, { size, references: at > 0 ? [`p${at - 1}`] : [] }),
  );

describe("a batch", () => {
  test("of 500 small paths is one generation in few write requests", async () => {
    const store = new MemoryStore();
    using server = receiving(store);
    const paths = many(500);
    for (const path of paths) expect((await server.upload(path)).status).toBe(201);
    await server.commit();
    expect(store.tagsOf("seg-")).toHaveLength(1);
    expect(store.calls.filter((call) => /^write/.test(call)).length).toBeLessThan(12);
    await expectCommitted(store, paths);
    expect(server.journal.totals()).toEqual({ paths: 0, bytes: 0 });
    expect(readdirSync(join(server.folder, "blobs"))).toEqual([]);
  });

  test("says what it is: bare paths, whose roots nobody in it refers to", async () => {
    const store = new MemoryStore();
    using server = receiving(store);
    for (const path of [...many(3), uploadedPath("other", { references: ["other"] })])
      await server.upload(path);
    await server.commit();
    const [generation] = server.machine.database.view.generations();
    expect(generation?.record).toMatchObject({ source: "paths", entries: 4 });
    expect(Object.values(generation?.record.roots ?? {}).map((path) => path.slice(44))).toEqual(
      expect.arrayContaining(["other", "p2"]),
    );
    expect(Object.keys(generation?.record.roots ?? {})).toHaveLength(2);
  });

  test("is a closure by itself: what the index has of it is restated verbatim", async () => {
    const store = new MemoryStore();
    using server = receiving(store);
    const [first, second, third] = many(3) as [UploadedPath, UploadedPath, UploadedPath];
    await server.upload(first);
    await server.upload(second);
    await server.commit();
    const line = server.machine.database.view.line(first.hash);
    using again = receiving(store, { machine: server.machine });
    await again.upload(third);
    await again.commit();
    const counts = server.machine.database.view.generations().map(({ record }) => record.entries);
    expect(counts.sort()).toEqual([2, 3]);
    expect(server.machine.database.view.line(first.hash)).toEqual(line);
  });

  test("takes at most 2,000 paths; the next one takes the rest", async () => {
    const store = new MemoryStore();
    using server = receiving(store);
    const shared = uploadedPath("p0", { content: "same" });
    await server.upload(shared);
    for (let at = 1; at <= MAX_BATCH_PATHS; at++) {
      const { hash, file, info } = uploadedPath(`p${at}`, { content: "same" });
      const row = { path: `${hash}.narinfo`, kind: "narinfo", hash, nar: file } as const;
      server.journal.addText(row, formatNarInfo(info));
    }
    await server.commit();
    expect(store.tagsOf("seg-")).toHaveLength(2);
    expect(server.journal.totals()).toEqual({ paths: 0, bytes: 0 });
    expect(server.machine.database.view.count()).toBe(MAX_BATCH_PATHS + 1);
  });

  test("keeps a large NAR as it is, and splits one beyond the part size", async () => {
    const store = new MemoryStore();
    using server = receiving(store, { partBytes: 2_000_000 });
    const [whole, split] = [
      uploadedPath("w", { size: 1_900_000 }),
      uploadedPath("s", { size: 4_500_000, compression: "zstd" }),
    ];
    await server.upload(whole);
    await server.upload(split);
    await server.commit();
    expect(store.blobs.has(digestOf(whole.bytes))).toBe(true);
    expect(server.machine.database.view.nar(split.file)?.parts).toHaveLength(3);
    await expectCommitted(store, [whole, split]);
  });

  test("takes a NAR that another path has from the index", async () => {
    const store = new MemoryStore();
    using server = receiving(store);
    const [one, two] = [uploadedPath("one", { content: "same" }), uploadedPath("two", { content: "same" })];
    await server.upload(one);
    await server.commit();
    expect(server.writer.keepsNar(two.file)).toBe(true);
    using again = receiving(store, { machine: server.machine });
    expect((await again.put(`${two.hash}.narinfo`, formatNarInfo(two.info))).status).toBe(201);
    const wrong = { ...two.info, narHash: `sha256:${"0".repeat(52)}` };
    const refused = await again.put(`${two.hash}.narinfo`, formatNarInfo(wrong));
    expect(refused.status).toBe(400);
    expect(refused.text).toContain("holds another NAR");
    await again.commit();
    await expectCommitted(store, [one, two]);
  });
});

describe("a file of the journal that the disk has changed", () => {
  /** Uploads one path of each size, changes its file, and another one that stays as it is. */
  async function spoil(
    server: ReturnType<typeof receiving>,
    path: UploadedPath,
    change: (file: string, bytes: Buffer) => void,
  ) {
    const whole = uploadedPath("whole");
    for (const upload of [path, whole]) expect((await server.upload(upload)).status).toBe(201);
    const file = server.journal.blobFile(digestOf(path.bytes));
    change(file, readFileSync(file));
    await server.commit();
    return whole;
  }

  const flip = (file: string, bytes: Buffer) => {
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1;
    writeFileSync(file, bytes);
  };
  const cut = (file: string, bytes: Buffer) => writeFileSync(file, bytes.subarray(0, -1));
  const remove = (file: string) => rmSync(file);

  test.each([
    ["in a pack", 700, flip],
    ["in a pack, cut off", 700, cut],
    ["in a pack, gone", 700, remove],
    ["for itself", 1_900_000, flip],
    ["for itself, cut off", 1_900_000, cut],
    ["for itself, gone", 1_900_000, remove],
    ["in several parts", 4_500_000, flip],
    ["in several parts, cut off", 4_500_000, cut],
    ["in several parts, gone", 4_500_000, remove],
  ])("%s, is not committed, keeps nothing else back, and can be sent again", async (_, size, change) => {
    using folder = temporaryFolder();
    for (const store of [new MemoryStore(), openLayout(join(folder.path, "cache"), { host: realHost })]) {
      using machine = party(store);
      using server = receiving(store, { partBytes: 2_000_000, machine });
      const path = uploadedPath("spoilt", { size });
      const whole = await spoil(server, path, change);
      await expectCommitted(store, [whole]);
      expect(machine.database.view.narinfo(path.hash)).toBeUndefined();
      expect(server.logged.filter((line) => line.includes("the disk has changed"))).toEqual([
        expect.stringContaining(path.info.storePath),
      ]);
      // Nobody is told any more that it is here.
      expect(server.writer.view.narinfo(path.hash)).toBeUndefined();
      expect(server.writer.keepsNar(path.file)).toBe(false);
      using again = receiving(store, { partBytes: 2_000_000, machine });
      expect((await again.upload(path)).status).toBe(201);
      await again.commit();
      await expectCommitted(store, [whole, path]);
    }
  });

  test("beside a NAR costs nothing but itself", async () => {
    const store = new MemoryStore();
    using server = receiving(store);
    const path = uploadedPath("a");
    await server.put(`${path.hash}.ls`, "{}");
    const listing = server.journal.file(`${path.hash}.ls`);
    await spoil(server, path, () => flip(...fileOf(server, listing?.digest as Digest)));
    await expectCommitted(store, [path]);
    expect(server.machine.database.view.listing(path.hash)).toBeUndefined();
  });

  test("or lost while no server ran, is not answered for, and can be sent again", async () => {
    const store = new MemoryStore();
    using server = receiving(store);
    const [path, whole] = [uploadedPath("lost"), uploadedPath("whole")];
    for (const upload of [path, whole]) await server.upload(upload);
    rmSync(server.journal.blobFile(digestOf(path.bytes)));
    server.journal[Symbol.dispose]();
    using next = receiving(store, { folder: server.folder, machine: server.machine });
    await next.commit();
    await expectCommitted(store, [whole]);
    expect(next.writer.view.narinfo(path.hash)).toBeUndefined();
    expect(next.logged.join("\n")).toContain(path.info.storePath);
    using again = receiving(store, { machine: server.machine });
    await again.upload(path);
    await again.commit();
    await expectCommitted(store, [whole, path]);
  });

  function fileOf(server: ReturnType<typeof receiving>, digest: Digest): [string, Buffer] {
    const file = server.journal.blobFile(digest);
    return [file, readFileSync(file)];
  }
});

test("listing, log, realisation and debuginfo go with their entry, whenever they come", async () => {
  const store = new MemoryStore();
  using server = receiving(store);
  const deriver = `${"1".repeat(32)}-a.drv`;
  const path = uploadedPath("a", { deriver, compression: "zstd" });
  const [log, realisation] = [`log/${deriver}`, "realisations/sha256:0!out.doi"];
  const output = path.info.storePath.slice("/nix/store/".length);
  const accepted = async (target: string, body: string) =>
    expect([target, (await server.put(target, body)).status]).toEqual([target, 201]);
  await accepted(`${path.hash}.ls`, "{}");
  await accepted("debuginfo/0123", `{"archive":"../nar/${path.file}"}`);
  expect((await server.upload(path)).status).toBe(201);
  await accepted(log, "built\n".repeat(50_000));
  await server.commit();
  const { view } = server.machine.database;
  expect(Object.keys(entryOf(view.line(path.hash) as never).attached ?? {}).sort()).toEqual(
    ["debuginfo/0123", log].sort(),
  );
  expect(view.listing(path.hash)).toBeDefined();

  using later = receiving(store, { machine: server.machine });
  const text = `{"dependentRealisations":{},"id":"sha256:0!out","outPath":"${output}","signatures":[]}`;
  expect((await later.put(realisation, text)).status).toBe(201);
  expect(later.writer.view.attached(realisation)).toEqual({ text });
  await later.commit();
  const entry = entryOf(view.line(path.hash) as never);
  expect(Object.keys(entry.attached ?? {}).sort()).toEqual(["debuginfo/0123", log, realisation].sort());
  expect(entry.listing).toEqual(view.listing(path.hash) as never);
  expect(later.journal.totals()).toEqual({ paths: 0, bytes: 0 });
  await expectCommitted(store, [path]);
});

test("another build of a path gets nothing of the one that it replaces", async () => {
  const store = new MemoryStore();
  using server = receiving(store);
  const path = uploadedPath("a");
  await server.upload(path);
  expect((await server.put(`${path.hash}.ls`, "{}")).status).toBe(201);
  expect((await server.put("debuginfo/0123", `{"archive":"../nar/${path.file}"}`)).status).toBe(201);
  await server.commit();
  const { view } = server.machine.database;
  expect(view.listing(path.hash)).toBeDefined();
  const rebuilt = uploadedPath("a", { content: "rebuilt" });
  using later = receiving(store, { machine: server.machine });
  expect((await later.upload(rebuilt)).status).toBe(201);
  await later.commit();
  const entry = entryOf(server.machine.database.view.line(path.hash) as never);
  expect(entry).toMatchObject({ info: { narHash: rebuilt.info.narHash, sigs: [] } });
  expect([entry.listing, entry.attached]).toEqual([undefined, undefined]);
});

test("what is put again while it is committed is committed again", async () => {
  const store = new MemoryStore();
  using server = receiving(store);
  const path = uploadedPath("a");
  const signed = { ...path.info, sigs: [`late-1:${Buffer.alloc(64).toString("base64")}`] };
  await server.upload(path);
  let puts = 0;
  store.before = async (call, subject) => {
    if (call !== "writeManifest" || !subject.startsWith("seg-") || puts++ > 0) return;
    expect((await server.put(`${path.hash}.narinfo`, formatNarInfo(signed))).status).toBe(201);
  };
  await server.commit();
  expect(store.tagsOf("seg-")).toHaveLength(2);
  expect(server.journal.totals()).toEqual({ paths: 0, bytes: 0 });
  await expectCommitted(store, [{ ...path, info: signed }]);
});

test("a NAR whose entries have left the index must be sent again", async () => {
  const store = new MemoryStore();
  using server = receiving(store);
  const path = uploadedPath("a");
  await server.upload(path);
  await server.commit();
  const { database, host } = server.machine;
  await database.update(
    async (update) =>
      update.removeLayers(
        database.view.layers().map(({ id }) => id),
        host.now(),
      ),
    async () => {},
  );
  expect(database.view.nar(path.file)).toBeDefined();
  expect(server.writer.keepsNar(path.file)).toBe(false);
  expect((await server.put(`${path.hash}.narinfo`, formatNarInfo(path.info))).status).toBe(400);
});

test("what no narinfo came for is removed after a day, and not before", async () => {
  const store = new MemoryStore();
  using server = receiving(store);
  const [alone, other] = [uploadedPath("alone"), uploadedPath("other")];
  await server.put(`nar/${alone.file}`, alone.bytes);
  await server.put(`${alone.hash}.ls`, "{}");
  server.machine.host.time += 23 * 3_600_000;
  await server.upload(other);
  await server.commit();
  expect(server.journal.file(`nar/${alone.file}`)).toBeDefined();
  server.machine.host.time += 2 * 3_600_000;
  server.journal.sweep();
  expect(server.journal.totals()).toEqual({ paths: 0, bytes: 0 });
  expect(readdirSync(join(server.folder, "blobs"))).toEqual([]);
});

describe("a process that was killed", () => {
  test("leaves a journal that the next one commits", async () => {
    const store = new MemoryStore();
    using server = receiving(store);
    const paths = many(3);
    for (const path of paths) await server.upload(path);
    // What it had under way: a file without a row, and one in the making.
    mkdirSync(join(server.folder, "drafts"), { recursive: true });
    writeFileSync(join(server.folder, "drafts", crypto.randomUUID()), "half");
    writeFileSync(join(server.folder, "blobs", "f".repeat(64)), "no row");
    server.journal[Symbol.dispose]();
    using next = receiving(store, { folder: server.folder });
    expect(next.writer.view.narinfo(paths[0]?.hash ?? "")).toBeDefined();
    expect(readdirSync(join(server.folder, "drafts"))).toEqual([]);
    expect(readdirSync(join(server.folder, "blobs"))).toHaveLength(3);
    await next.commit();
    await expectCommitted(store, paths);
  });

  test("after the commit and before the journal was emptied: nothing is committed twice", async () => {
    const store = new MemoryStore();
    using earlier = receiving(store);
    await earlier.upload(uploadedPath("earlier"));
    await earlier.commit();
    using server = receiving(store, { machine: earlier.machine });
    const paths = many(3);
    for (const path of paths) await server.upload(path);
    // The commit happens, and the list does not show it until the next start.
    store.before = (call, subject) => {
      if (call === "writeManifest" && subject.startsWith("seg-")) store.hidden.add(subject);
    };
    await server.commit();
    expect(server.journal.totals().paths).toBe(3);
    expect(server.writer.view.narinfo(paths[0]?.hash ?? "")).toBeDefined();
    server.journal[Symbol.dispose]();
    store.hidden.clear();
    using next = receiving(store, { folder: server.folder });
    await next.commit();
    expect(store.tagsOf("seg-")).toHaveLength(2);
    expect(next.journal.totals()).toEqual({ paths: 0, bytes: 0 });
    await expectCommitted(store, paths);
  });

  test("loses no other server its journal", () => {
    using server = receiving(new MemoryStore());
    expect(() => Journal.open(server.folder, new MemoryStore(), Date.now)).toThrow(
      /another nixcache serve --writable uses it/,
    );
  });
});

describe("a batch closes", () => {
  /** When the first commit began, in milliseconds after the first upload. @param busy whether an upload goes on */
  async function closesAfter(busy: boolean): Promise<number> {
    const store = new MemoryStore();
    using server = receiving(store);
    const { host } = server.machine;
    const start = host.now();
    await server.upload(uploadedPath("a"));
    const upload = Promise.withResolvers<void>();
    const uploading = busy ? server.committer.during(() => upload.promise) : undefined;
    let began: number | undefined;
    store.before = () => {
      began ??= host.now() - start;
      server.committer.close();
    };
    await server.committer.run();
    upload.resolve();
    await uploading;
    return began ?? Number.NaN;
  }

  test("after some seconds without an upload", async () => {
    expect(await closesAfter(false)).toBe(5_000);
  });

  test("after two minutes, although uploads go on", async () => {
    expect(await closesAfter(true)).toBe(120_000);
  });
});

test("a generation that the list does not show yet is not committed again", async () => {
  const store = new MemoryStore();
  using server = receiving(store);
  const path = uploadedPath("a");
  await server.upload(path);
  const { host } = server.machine;
  let committedAt = Number.POSITIVE_INFINITY;
  store.before = (call, subject) => {
    if (call === "writeManifest" && subject.startsWith("seg-")) {
      store.hidden.add(subject);
      committedAt = Math.min(committedAt, host.now());
    }
    if (host.now() < committedAt + 100_000) return;
    store.hidden.clear();
    server.committer.close();
  };
  await server.committer.run();
  expect(store.tagsOf("seg-")).toHaveLength(1);
  expect(server.journal.totals()).toEqual({ paths: 0, bytes: 0 });
  await expectCommitted(store, [path]);
});

test("aborted, it ends at once, also while a generation is not shown yet", async () => {
  const store = new MemoryStore();
  const stop = new AbortController();
  using machine = party(store);
  using server = receiving(store, { machine: { ...machine, signal: stop.signal } });
  const path = uploadedPath("a");
  await server.upload(path);
  let looks = 0;
  const { now } = machine.host;
  machine.host.now = () => {
    // Whoever goes round and round comes by here.
    if (stop.signal.aborted && ++looks > 100) throw new Error("it does not end");
    return now();
  };
  store.before = (call, subject) => {
    stop.signal.throwIfAborted();
    if (call === "writeManifest" && subject.startsWith("seg-")) store.hidden.add(subject);
    // After the commit the tags are listed again.
    if (call === "listTags" && store.hidden.size > 0 && machine.host.time > start + 30_000) stop.abort();
  };
  const start = machine.host.time;
  await server.committer.run();
  expect(stop.signal.aborted).toBe(true);
  expect(server.journal.totals().paths).toBe(1);
});

test("a store that fails: the journal stays, answers, and is committed once the store is back", async () => {
  const store = new MemoryStore();
  using server = receiving(store);
  const paths = many(2);
  for (const path of paths) await server.upload(path);
  let failures = 0;
  const waits: number[] = [];
  const { host } = server.machine;
  const sleep = host.sleep;
  host.sleep = (ms) => {
    waits.push(ms);
    return sleep(ms);
  };
  store.before = () => {
    // Two questions at once, six times.
    if (failures++ < 12) throw new NixcacheError("unreachable", "the registry is down");
    server.committer.close();
  };
  await server.committer.run();
  expect(server.logged.filter((message) => message.includes("the registry is down"))).toHaveLength(1);
  // Until the batch closes, and then between tries.
  expect(waits.filter((ms) => ms > 0).slice(0, 5)).toEqual([5_000, 5_000, 10_000, 20_000, 40_000]);
  expect(server.committer.status().lastError).toBeUndefined();
  expect(server.committer.status().lastCommit).toBeNumber();
  await expectCommitted(store, paths);
});

test("a reference that has left the cache keeps its referrer waiting, and nothing else", async () => {
  const store = new MemoryStore();
  using server = receiving(store);
  const [base, referrer, other] = [
    uploadedPath("base"),
    uploadedPath("referrer", { references: ["base"] }),
    uploadedPath("other"),
  ];
  await server.upload(base);
  await server.commit();
  using again = receiving(store, { machine: server.machine });
  await again.upload(referrer);
  await again.upload(other);
  // Its blob is gone, as after a clean-up by hand.
  for (const { blob } of server.machine.database.view.nar(base.file)?.parts ?? []) store.blobs.delete(blob);
  await again.commit();
  await expectCommitted(store, [other]);
  expect(again.committer.status().lastError).toContain("it refers to");
  expect(again.writer.view.narinfo(referrer.hash)).toBeDefined();
  expect(again.journal.totals().paths).toBe(1);
});

test("pieces: small ones share packs, each piece is in one, and large ones stand alone", () => {
  const piece = (name: string, size: number): Piece => ({ digest: digestOf(name), size, file: name });
  const MIB = 1024 * 1024;
  const sizes = [MIB, MIB, MIB + 1, MIB, ...Array(6).fill(MIB), 5];
  const pieces = sizes.map((size, at) => piece(String(at), size));
  const groups = planBlobs([...pieces, ...pieces]);
  expect(groups.map((group) => group.map(({ file }) => Number(file)))).toEqual([
    [0, 1, 3, 4, 5, 6, 7, 8],
    [2],
    [9, 10],
  ]);
});

/** What is special about a folder: other processes, killed ones, other tools, and what people put there. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, link, mkdir, mkdtemp, readdir, rm, stat, unlink, utimes } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { digestHex, digestOf } from "../../../src/oci/digest.ts";
import { openLayout } from "../../../src/oci/layout.ts";
import { withLock } from "../../../src/oci/layout-lock.ts";
import { bytesOf, randomBytes, readAll, realHost, writeBlob, writeTag } from "./helpers.ts";

const PROCESS = join(import.meta.dir, "layout-process.ts");

let parent = "";
beforeAll(async () => {
  parent = await mkdtemp(join(tmpdir(), "nixcache-test-layout-"));
});
afterAll(() => rm(parent, { recursive: true, force: true }));

let count = 0;
const newFolder = () => join(parent, String(count++));
const openAt = (folder: string) => openLayout(folder, { host: realHost });

function start(...args: string[]) {
  return Bun.spawn([process.execPath, PROCESS, ...args], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
}

/** Lines that a process prints, as they come. */
async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream() as never) as AsyncIterable<string>) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

describe("several processes", () => {
  test("30 writers of distinct tags in 6 processes, which make the folder together: none is lost", async () => {
    const folder = newFolder();
    const writers = Array.from({ length: 6 }, (_, i) => start("write", folder, `p${i}`, "5"));
    expect(await Promise.all(writers.map((writer) => writer.exited))).toEqual([0, 0, 0, 0, 0, 0]);
    const store = openAt(folder);
    const expected = writers.flatMap((_, i) => Array.from({ length: 5 }, (_, j) => `p${i}-${j}`));
    expect((await store.listTags()).sort()).toEqual(expected.sort());
    for (const tag of expected) await readAll(store, tag);
    expect(await readdir(join(folder, ".nixcache-tmp"))).toEqual([]);
  }, 60_000);

  test("killed while it holds the lock, a process stands in nobody's way", async () => {
    const folder = newFolder();
    await writeTag(openAt(folder), "before", "before");
    const holder = start("hold", folder);
    for await (const line of linesOf(holder.stdout)) if (line === "held") break;

    // It does hold it: with a clock that runs as fast as one waits, the time is over at once.
    let now = 0;
    const sleep = async (ms: number) => {
      now += ms;
    };
    const host = { now: () => now, random: () => 0.5, sleep };
    const waiting = writeTag(openLayout(folder, { host, lockTimeoutMs: 10_000 }), "t", "t");
    await expect(waiting).rejects.toMatchObject({
      code: "filesystem",
      message: expect.stringContaining(join(folder, ".nixcache.lock")),
    });
    // Reading needs no lock.
    expect(await openAt(folder).listTags()).toEqual(["before"]);

    holder.kill("SIGKILL");
    await holder.exited;
    await writeTag(openAt(folder), "after", "after");
    expect((await openAt(folder).listTags()).sort()).toEqual(["after", "before"]);
  }, 60_000);

  test("killed anywhere, what was committed stays, and the next one goes on", async () => {
    const folder = newFolder();
    for (let round = 0; round < 8; round++) {
      const writer = start("write", folder, `r${round}`, "1000");
      const committed: string[] = [];
      for await (const line of linesOf(writer.stdout)) {
        committed.push(line);
        // In the middle of the next one, wherever that is by now.
        if (committed.length === 1 + round) writer.kill("SIGKILL");
      }
      await writer.exited;
      const store = openAt(folder);
      const tags = new Set(await store.listTags());
      expect(committed.filter((tag) => !tags.has(tag))).toEqual([]);
      for (const tag of tags)
        expect((await readAll(store, tag)).digest).toBe((await store.statManifest(tag)) as never);
    }
    await writeTag(openAt(folder), "last", "last");
  }, 120_000);

  test("the lock lets one in at a time, also within a process", async () => {
    const folder = newFolder();
    await mkdir(folder);
    let inside = 0;
    let most = 0;
    const enter = () =>
      withLock(join(folder, "lock"), { host: realHost, timeoutMs: 60_000 }, async () => {
        most = Math.max(most, ++inside);
        await Bun.sleep(1);
        inside--;
      });
    await Promise.all(Array.from({ length: 20 }, enter));
    expect(most).toBe(1);
    expect(await readdir(folder)).toEqual(["lock"]);
    expect((await stat(join(folder, "lock"))).size).toBe(0);
    await expect(
      withLock(join(folder, "lock"), { host: realHost, timeoutMs: 1 }, async () => {
        throw new Error("of the action");
      }),
    ).rejects.toThrow("of the action");
    await enter();
  });
});

describe("what is in the folder", () => {
  test("a layout as the specification has it", async () => {
    const folder = newFolder();
    const store = openAt(folder);
    expect(store.strictness).toBe("strict");
    const digest = await writeTag(store, "t", "content");
    expect(await Bun.file(join(folder, "oci-layout")).json()).toEqual({ imageLayoutVersion: "1.0.0" });
    const size = (await readAll(store, "t")).bytes.length;
    expect(await Bun.file(join(folder, "index.json")).json()).toEqual({
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.index.v1+json",
      manifests: [
        {
          mediaType: "application/vnd.oci.image.manifest.v1+json",
          digest,
          size,
          annotations: { "org.opencontainers.image.ref.name": "t" },
        },
      ],
    });
    expect(await Bun.file(join(folder, "blobs/sha256", digestHex(digest))).exists()).toBe(true);
  });

  test("entries, annotations and fields of other tools stay as they are", async () => {
    const folder = newFolder();
    const store = openAt(folder);
    await writeTag(store, "t", "content");
    const file = join(folder, "index.json");
    const index = await Bun.file(file).json();
    const foreign = {
      mediaType: "application/vnd.oci.image.index.v1+json",
      digest: digestOf("foreign"),
      size: 7,
      platform: { os: "linux", architecture: "riscv64" },
      annotations: { "org.opencontainers.image.ref.name": "docker.io/library/alpine:3", "io.tool": "x" },
    };
    const nameless = { mediaType: "text/plain", digest: digestOf("nameless"), size: 8 };
    const fields = { annotations: { a: "b" }, "x-unknown": [1, { two: 2 }] };
    await Bun.write(
      file,
      JSON.stringify({ ...index, ...fields, manifests: [foreign, ...index.manifests, nameless] }),
    );

    await writeTag(store, "u", "more");
    await writeTag(store, "t", "changed");
    const after = await Bun.file(file).json();
    expect(after).toMatchObject(fields);
    expect(after.manifests.slice(0, 2)).toEqual([foreign, nameless]);
    expect((await store.listTags()).sort()).toEqual(["t", "u"]);
    const digest = (await store.statManifest("t")) as never;
    expect(await store.deleteManifest(digest)).toBe(true);
    expect((await Bun.file(file).json()).manifests.slice(0, 2)).toEqual([foreign, nameless]);
  });

  test("asking whether it can be written to makes nothing, and says why it cannot", async () => {
    const folder = newFolder();
    await openAt(join(folder, "deep", "cache")).checkWrite?.();
    expect(await stat(folder).catch(() => undefined)).toBeUndefined();
    await writeTag(openAt(folder), "t", "content");
    // The order is that in which folders happened to be read.
    const files = async () => (await readdir(folder, { recursive: true })).sort();
    const before = await files();
    await openAt(folder).checkWrite?.();
    expect(await files()).toEqual(before);

    await expect(openAt(join(folder, "oci-layout")).checkWrite?.()).rejects.toMatchObject({ code: "layout" });
    await Bun.write(join(`${folder}-other`, "file"), "something else");
    await expect(openAt(`${folder}-other`).checkWrite?.()).rejects.toMatchObject({ code: "layout" });
  });

  test("a folder whose rights or file system forbid it cannot be written to", async () => {
    const folder = newFolder();
    await writeTag(openAt(folder), "t", "content");
    // To root rights say nothing, unless it has given that up.
    const bounded = process.getuid?.() === 0 ? ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] : [];
    const said = async (path: string) => {
      const command = [...bounded, process.execPath, PROCESS, "check-write", path];
      const child = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
      return [(await child.stdout.text()).trim(), await child.exited];
    };
    expect(await said(folder)).toEqual(["can be written to", 0]);
    for (const locked of [join(folder, "blobs", "sha256"), folder]) {
      await chmod(locked, 0o555);
      try {
        expect(await said(folder)).toEqual([expect.stringContaining("filesystem: write into"), 0]);
        if (locked === folder) expect((await said(join(folder, "new")))[0]).toContain(`write into ${folder}`);
      } finally {
        await chmod(locked, 0o755);
      }
    }
  });

  test("reading makes nothing, and an empty folder is an empty cache", async () => {
    const missing = newFolder();
    expect(await openAt(missing).listTags()).toEqual([]);
    expect(await openAt(missing).deleteManifest(digestOf("x"))).toBe(false);
    await expect(stat(missing)).rejects.toMatchObject({ code: "ENOENT" });

    const empty = newFolder();
    await mkdir(empty);
    expect(await openAt(empty).listTags()).toEqual([]);
    expect(await readdir(empty)).toEqual([]);
    await writeTag(openAt(empty), "t", "content");
    expect(await openAt(empty).listTags()).toEqual(["t"]);
  });

  test("a folder that holds something else is left alone, and the error says what is there", async () => {
    const folder = newFolder();
    for (const name of ["photo.jpg", "b", "c", "d"]) await Bun.write(join(folder, name), "x");
    const store = openAt(folder);
    for (const call of [
      () => store.listTags(),
      () => store.readManifest("t"),
      () => store.statBlob(digestOf("x")),
      () => writeBlob(store, randomBytes(1)),
      () => writeTag(store, "t", "t"),
    ]) {
      await expect(call()).rejects.toMatchObject({
        code: "layout",
        message: expect.stringContaining("1 more"),
      });
    }
    expect((await readdir(folder)).sort()).toEqual(["b", "c", "d", "photo.jpg"]);
    await expect(openAt(join(folder, "b")).listTags()).rejects.toMatchObject({ code: "layout" });
  });

  test.each<[string, string, string, string]>([
    ["another version", "oci-layout", '{"imageLayoutVersion":"2.0.0"}', "layout"],
    ["a broken marker", "oci-layout", "{", "corrupt"],
    ["an index that is no JSON", "index.json", '{"manifests":[', "corrupt"],
    ["an index without a list", "index.json", '{"schemaVersion":2}', "corrupt"],
    ["an empty index file", "index.json", "", "corrupt"],
    [
      "an entry with a wrong digest",
      "index.json",
      '{"manifests":[{"mediaType":"a","digest":"x","size":1}]}',
      "corrupt",
    ],
  ])("%s is an error, never an empty cache", async (_, name, content, code) => {
    const folder = newFolder();
    await writeTag(openAt(folder), "t", "content");
    await Bun.write(join(folder, name), content);
    const store = openAt(folder);
    await expect(store.listTags()).rejects.toMatchObject({ code });
    await expect(store.readManifest("t")).rejects.toMatchObject({ code });
    await expect(writeTag(store, "u", "more")).rejects.toMatchObject({ code });
    expect(await Bun.file(join(folder, name)).text()).toBe(content);
  });

  test("a lost index is an error, never an empty cache", async () => {
    const folder = newFolder();
    await writeTag(openAt(folder), "t", "content");
    await unlink(join(folder, "index.json"));
    await expect(openAt(folder).listTags()).rejects.toMatchObject({ code: "layout" });
    await expect(writeTag(openAt(folder), "u", "more")).rejects.toMatchObject({ code: "layout" });
  });

  test("a making that was interrupted is finished, and an index that is there already is kept", async () => {
    const folder = newFolder();
    await writeTag(openAt(folder), "t", "content");
    await unlink(join(folder, "oci-layout"));
    await writeTag(openAt(folder), "u", "more");
    expect((await openAt(folder).listTags()).sort()).toEqual(["t", "u"]);
  });

  test("a manifest whose bytes were changed, or that is gone, is corrupt", async () => {
    const folder = newFolder();
    const digest = await writeTag(openAt(folder), "t", "content");
    const file = join(folder, "blobs/sha256", digestHex(digest));
    const bytes = await Bun.file(file).bytes();
    await Bun.write(
      file,
      bytes.map((byte, i) => (i === 30 ? byte ^ 1 : byte)),
    );
    await expect(openAt(folder).readManifest("t")).rejects.toMatchObject({ code: "corrupt" });
    await unlink(file);
    await expect(openAt(folder).readManifest("t")).rejects.toMatchObject({ code: "corrupt" });
  });

  test("a damaged blob is replaced when it is written again", async () => {
    const folder = newFolder();
    const store = openAt(folder);
    const bytes = randomBytes(1000);
    const digest = await writeBlob(store, bytes);
    const file = join(folder, "blobs/sha256", digestHex(digest));
    await Bun.write(file, bytes.subarray(0, 500));
    expect((await store.statBlob(digest)) as number).toBe(500);
    await writeBlob(store, bytes);
    expect(await bytesOf(await store.readBlob(digest))).toEqual(bytes);
  });
});

describe("files", () => {
  test("a blob from a file is not copied within a file system, and gets the rights of the others", async () => {
    const folder = newFolder();
    const store = openAt(folder);
    const small = await writeBlob(store, randomBytes(10));
    const bytes = randomBytes(2000);
    const file = join(parent, "source");
    await Bun.write(file, bytes);
    await chmod(file, 0o600);
    const inode = (await stat(file)).ino;
    const digest = digestOf(bytes);
    await store.writeBlob({ digest, size: 2000, content: { file } });
    const modeOf = async (name: string) =>
      (await stat(join(folder, "blobs/sha256", digestHex(name as never)))).mode;
    expect((await stat(join(folder, "blobs/sha256", digestHex(digest)))).ino).toBe(inode);
    expect(await modeOf(digest)).toBe(await modeOf(small));
  });

  test("a blob from a file with many names already, of the wrong size, or that ends early", async () => {
    const folder = newFolder();
    const store = openAt(folder);
    const bytes = randomBytes(2000);
    const digest = digestOf(bytes);
    const file = join(parent, "source-2");
    await Bun.write(file, bytes);
    await link(file, `${file}-too`);
    await expect(store.writeBlob({ digest, size: 1999, content: { file } })).rejects.toMatchObject({
      code: "corrupt",
    });
    expect(await store.statBlob(digest)).toBeUndefined();
    await store.writeBlob({ digest, size: 2000, content: { file: `${file}-too` } });
    expect(await bytesOf(await store.readBlob(digest))).toEqual(bytes);
    expect(await readdir(join(folder, ".nixcache-tmp"))).toEqual([]);
  });

  test("from another file system it is copied, and its digest is checked on the way", async () => {
    const shm = "/dev/shm";
    const elsewhere = await mkdtemp(join(shm, "nixcache-test-")).catch(() => undefined);
    if (elsewhere === undefined || (await stat(elsewhere)).dev === (await stat(parent)).dev) return;
    try {
      const folder = newFolder();
      const store = openAt(folder);
      const bytes = randomBytes(1_000_000);
      const digest = digestOf(bytes);
      const file = join(elsewhere, "source");
      await Bun.write(file, bytes);
      await store.writeBlob({ digest, size: bytes.length, content: { file } });
      expect(await bytesOf(await store.readBlob(digest))).toEqual(bytes);
      const other = digestOf("other");
      const lie = store.writeBlob({ digest: other, size: bytes.length, content: { file } });
      await expect(lie).rejects.toMatchObject({ code: "corrupt" });
      expect(await store.statBlob(other)).toBeUndefined();
      expect(await readdir(join(folder, ".nixcache-tmp"))).toEqual([]);
    } finally {
      await rm(elsewhere, { recursive: true });
    }
  });

  test("leftovers of killed processes go after a day, younger ones stay", async () => {
    const folder = newFolder();
    await writeTag(openAt(folder), "t", "content");
    const leftover = join(folder, ".nixcache-tmp", "leftover");
    await Bun.write(leftover, "x");
    await writeTag(openAt(folder), "u", "more");
    expect(await Bun.file(leftover).exists()).toBe(true);
    const later = { ...realHost, now: () => Date.now() + 25 * 3_600_000 };
    await writeTag(openLayout(folder, { host: later }), "v", "yet more");
    expect(await Bun.file(leftover).exists()).toBe(false);
  });

  test("a blob that is there already is made young again, for a collector to spare it", async () => {
    const folder = newFolder();
    const bytes = randomBytes(10);
    const digest = await writeBlob(openAt(folder), bytes);
    const file = join(folder, "blobs/sha256", digestHex(digest));
    await utimes(file, 1000, 1000);
    await writeBlob(openAt(folder), bytes);
    expect((await stat(file)).mtimeMs).toBeGreaterThan(1_600_000_000_000);
  });

  test("what the system refuses is a filesystem error that names the path", async () => {
    // A file in the way works for root too, who may write everywhere.
    const blocked = newFolder();
    await Bun.write(blocked, "a file");
    await expect(writeBlob(openAt(join(blocked, "cache")), randomBytes(1))).rejects.toMatchObject({
      code: "layout",
    });
    await expect(writeBlob(openAt("/proc/nixcache-test"), randomBytes(1))).rejects.toMatchObject({
      code: "filesystem",
      message: expect.stringContaining("/proc/nixcache-test"),
    });
  });
});

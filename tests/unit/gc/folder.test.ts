/** Collecting a folder, where gc itself removes what no manifest names. */
import { describe, expect, test } from "bun:test";
import { mkdtemp, readdir, rm, utimes } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { collectGarbage } from "../../../src/gc/gc.ts";
import { digestHex, digestOf } from "../../../src/oci/digest.ts";
import { openLayout } from "../../../src/oci/layout.ts";
import { collectBlobs } from "../../../src/oci/layout-collect.ts";
import { decodeIndex } from "../../../src/oci/layout-index.ts";
import { namedDigests } from "../../support/audit.ts";
import { DAY, HOUR, MAIN_LINE, STRETCH_POLICY, Stretch } from "../../support/gc-stretch.ts";
import { commitNames, party, testEntry } from "../../support/protocol.ts";

describe("gc in a folder", () => {
  const withFolder = async (body: (folder: string) => Promise<void>) => {
    const folder = await mkdtemp(join(tmpdir(), "nixcache-test-gc-"));
    try {
      await body(folder);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  };

  test(
    "removes what no manifest names, and after weeks holds no more than live generations do",
    () =>
      withFolder(async (folder) => {
        const clock = { now: () => 0 };
        const host = { now: () => clock.now(), random: Math.random, sleep: (ms: number) => Bun.sleep(ms) };
        const store = openLayout(folder, { host });
        using stretch = new Stretch(store, Date.now());
        clock.now = () => stretch.host.time;
        await stretch.run(14);
        stretch.host.time += 27 * HOUR;
        await stretch.collect();
        stretch.host.time += 27 * HOUR;
        const { freed } = await collectGarbage(stretch.collector, {
          ...STRETCH_POLICY,
          retentionMs: 60 * DAY,
        });
        expect(freed?.gone).toBeGreaterThan(0);
        await stretch.check();
        const files = await readdir(join(folder, "blobs", "sha256"));
        expect(files.sort()).toEqual([...(await namedDigests(stretch.store))].map(digestHex).sort());
      }),
    60_000,
  );

  test("leaves alone what is a day old or younger, other tools' images, and what a publish names meanwhile", () =>
    withFolder(async (folder) => {
      const host = { now: () => Date.now(), random: Math.random, sleep: (ms: number) => Bun.sleep(ms) };
      const store = openLayout(folder, { host });
      using machine = party(store);
      await commitNames(machine, ["live"], MAIN_LINE);
      const put = async (text: string, days: number) => {
        const content = new TextEncoder().encode(text);
        const digest = digestOf(content);
        await store.writeBlob({ digest, size: content.length, content });
        const file = join(folder, "blobs", "sha256", digestHex(digest));
        const time = Date.now() / 1000 - days * 24 * 3600;
        await utimes(file, time, time);
        return digest;
      };
      const uploading = await put("an upload under way", 0.9);
      const forgotten = await put("an upload that was killed", 1.1);
      const layer = await put("a layer of an image", 9);
      const image = await put(JSON.stringify({ layers: [{ digest: layer }] }), 9);
      const index = await put(JSON.stringify({ manifests: [{ digest: image }] }), 9);
      const json = await Bun.file(join(folder, "index.json")).json();
      json.manifests.push({ mediaType: "application/vnd.oci.image.index.v1+json", digest: index, size: 9 });
      await Bun.write(join(folder, "index.json"), JSON.stringify(json));
      expect(await store.collectBlobs?.()).toEqual({ blobs: 1, bytes: "an upload that was killed".length });
      const left = await Promise.all(
        [uploading, forgotten, layer, image, index].map((digest) => store.statBlob(digest)),
      );
      expect(left.map((size) => size !== undefined)).toEqual([true, false, true, true, true]);
      await rm(join(folder, "blobs", "sha256", digestHex(index)));
      await put("another that was killed", 2);
      await expect(store.collectBlobs?.() ?? Promise.resolve()).rejects.toMatchObject({ code: "corrupt" });
    }));

  test("an upload of what is there begins its day anew", () =>
    withFolder(async (folder) => {
      const clock = { time: Date.now() };
      const host = { now: () => clock.time, random: Math.random, sleep: (ms: number) => Bun.sleep(ms) };
      const store = openLayout(folder, { host });
      const { blob } = testEntry("path");
      const other = testEntry("other").blob;
      for (const each of [blob, other]) await store.writeBlob(each);
      clock.time += 23 * HOUR;
      await store.writeBlob(blob);
      clock.time += 23 * HOUR;
      expect(await store.collectBlobs?.()).toMatchObject({ blobs: 1 });
      expect([await store.statBlob(blob.digest), await store.statBlob(other.digest)]).toEqual([
        blob.size,
        undefined,
      ]);
      clock.time += 2 * HOUR;
      expect(await store.collectBlobs?.()).toMatchObject({ blobs: 1 });
    }));

  const late = { now: () => Date.now() + 3 * DAY, random: Math.random, sleep: (ms: number) => Bun.sleep(ms) };

  test("never removes what a commit has found, whoever comes first", () =>
    withFolder(async (folder) => {
      const store = openLayout(folder, { host: late });
      using machine = party(store);
      for (let round = 0; round < 10; round++) {
        const { blob } = testEntry(`path-${round}`);
        await store.writeBlob(blob);
        const results = await Promise.allSettled([
          commitNames(machine, [`path-${round}`], MAIN_LINE),
          store.collectBlobs?.(),
        ]);
        // Gone before its commit, it is named as missing; committed, it is there.
        const committed = results[0]?.status === "fulfilled";
        if (committed) expect(await store.statBlob(blob.digest)).toBe(blob.size);
        else expect(String((results[0] as PromiseRejectedResult).reason)).toContain("missing");
      }
    }));

  test("a commit after the list of files was made keeps its blobs", () =>
    withFolder(async (folder) => {
      const store = openLayout(folder, { host: late });
      using machine = party(store);
      const { blob } = testEntry("path");
      await store.writeBlob(blob);
      const readIndex = async () =>
        decodeIndex(await Bun.file(join(folder, "index.json")).bytes(), "index.json");
      const collected = await collectBlobs({
        blobs: join(folder, "blobs", "sha256"),
        readIndex,
        locked: async (action) => {
          await commitNames(machine, ["path"], MAIN_LINE);
          return action();
        },
        now: late.now,
      });
      expect(collected).toEqual({ blobs: 0, bytes: 0 });
      expect(await store.statBlob(blob.digest)).toBe(blob.size);
    }));
});

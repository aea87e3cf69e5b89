/** A cache of nixcache-oci with 100,000 entries, 109 MB of JSON: memory is that of an entry, and of numbers. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type LargeIndex, writeLargeIndex } from "../support/v1-large.ts";

const ENTRIES = 100_000;

let folder: string;
let index: LargeIndex;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "nixcache-test-v1-large-"));
  index = await writeLargeIndex(join(folder, "cache-index.json"), ENTRIES);
}, 60_000);
afterAll(() => rm(folder, { recursive: true, force: true }));

/** What `v1-large.ts` prints: in a process of its own, since only there memory can be told. */
async function measure(mode: "read" | "adopt") {
  const { file, digest, size, entries } = index;
  const script = join(import.meta.dir, "../support/v1-large.ts");
  const child = Bun.spawn([process.execPath, script, mode, file, digest, String(size), String(entries)], {
    stdout: "pipe",
    stderr: "inherit",
  });
  const text = await child.stdout.text();
  expect(await child.exited).toBe(0);
  return JSON.parse(text);
}

test("is read into the local index within 256 MiB", async () => {
  expect(index.size).toBeGreaterThan(100_000_000);
  const { peakMiB, ...found } = await measure("read");
  expect(found).toMatchObject({ count: ENTRIES, warnings: [], isAdopted: false, looked: 0 });
  expect(peakMiB).toBeLessThan(256);
}, 120_000);

test("is adopted within 640 MiB, each NAR looked for once and held", async () => {
  const { peakMiB, ...found } = await measure("adopt");
  const adoption = { paths: ENTRIES, leftOut: 0 };
  expect(found).toMatchObject({ count: ENTRIES, adoption, looked: ENTRIES, warnings: [], isAdopted: true });
  expect(found.holds).toBe(Math.floor(ENTRIES / 399));
  expect(peakMiB).toBeLessThan(640);
}, 300_000);

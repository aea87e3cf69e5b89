/** The disk cache of a process that is killed at any of its changes to a file: whole blobs, nothing left over. */
import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ROOT } from "../../scripts/process.ts";
import { cachedFileBytes } from "../../src/oci/blob-cache-file.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { readAll, someBlobs } from "../support/blob-cache-process.ts";

const SUPPORT = join(ROOT, "tests", "support");
const KILLED = 137;
/** Room for three of the four blobs. */
const LIMIT = 700_000;

const folder = mkdtempSync(join(tmpdir(), "nixcache-test-nar-cache-killed-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function fill(cache: string, env: Record<string, string>): Promise<number> {
  const [points, main] = [join(SUPPORT, "kill-points.ts"), join(SUPPORT, "blob-cache-process.ts")];
  const child = Bun.spawn([process.execPath, "--preload", points, main, cache, String(LIMIT)], {
    env: { ...process.env, ...env },
    stdout: "ignore",
    stderr: "inherit",
  });
  return child.exited;
}

/** Every file under a name is that blob, and all of them are within the limit. */
function check(cache: string): void {
  const sizes = new Map([...someBlobs()].map(([digest, bytes]) => [digest as string, bytes.length]));
  let total = 0;
  for (const name of readdirSync(join(cache, "blobs-v1"))) {
    const file = readFileSync(join(cache, "blobs-v1", name));
    const size = sizes.get(`sha256:${name}`) ?? 0;
    expect(file.length).toBe(cachedFileBytes(size));
    expect(digestOf(file.subarray(0, size))).toBe(`sha256:${name}`);
    total += file.length;
  }
  expect(total).toBeLessThanOrEqual(LIMIT);
}

test("killed at each change of a file: what is kept is whole, and the next start leaves nothing over", async () => {
  const counted = join(folder, "count");
  const counting = join(folder, "counting");
  expect(await fill(counting, { KILL_COUNT_FILE: counted })).toBe(0);
  expect(readdirSync(join(counting, "filling"))).toEqual([]);
  const total = Number(readFileSync(counted, "utf8"));
  expect(total).toBeGreaterThan(20);
  let leftovers = 0;
  for (let point = 1; point <= total; point++) {
    for (const when of ["before", "after"]) {
      const cache = join(folder, `${when}-${point}`);
      expect(await fill(cache, { KILL_POINT: String(point), KILL_WHEN: when })).toBe(KILLED);
      if (existsSync(join(cache, "filling"))) leftovers += readdirSync(join(cache, "filling")).length;
      await readAll(cache, LIMIT);
      check(cache);
      expect(readdirSync(join(cache, "filling"))).toEqual([]);
    }
  }
  expect(leftovers).toBeGreaterThan(total / 2);
}, 120_000);

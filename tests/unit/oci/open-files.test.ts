/** Files and streams that were opened are closed, whatever goes wrong between that and their use. */
import { expect, spyOn, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import type { IndexUpdate } from "../../../src/cache/index-update.ts";
import { realHost } from "../../../src/context.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { openLayout } from "../../../src/oci/layout.ts";
import { withLock } from "../../../src/oci/layout-lock.ts";
import { loadLayer } from "../../../src/protocol/load-layer.ts";
import { MemoryStore, withMethods } from "../../support/memory-store.ts";
import { openFiles } from "../../support/process-files.ts";
import { withDouble } from "../../support/registry-double.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { openDouble } from "./network.ts";

const BYTES = new TextEncoder().encode("the blob");
const BLOB = { digest: digestOf(BYTES), size: BYTES.length };

/** Runs `use` on a machine where no open file says how large it is. */
async function withoutStat(folder: string, use: () => Promise<unknown>): Promise<unknown> {
  const handle = await open(folder, "r");
  const prototype = Object.getPrototypeOf(handle) as typeof handle;
  await handle.close();
  using _ = spyOn(prototype, "stat").mockImplementation(async () => {
    throw Object.assign(new Error("EIO: i/o error, fstat"), { code: "EIO" });
  });
  return await use().then(
    () => "nothing went wrong",
    (error) => error,
  );
}

test("a file whose size cannot be told is closed, where it is read and where it is written", async () => {
  using folder = temporaryFolder();
  const file = join(folder.path, "content");
  writeFileSync(file, BYTES);
  const layout = openLayout(join(folder.path, "layout"), { host: realHost });
  await layout.writeBlob({ ...BLOB, content: BYTES });
  const other = { digest: digestOf("other"), size: BYTES.length, content: { file, foreign: true } };
  await withDouble(async (double) => {
    const registry = openDouble(double, { password: "ghp_secret" });
    await registry.writeBlob({ ...BLOB, content: BYTES });
    const before = openFiles(process.pid);
    for (const use of [
      () => layout.readBlob(BLOB.digest),
      () => layout.writeBlob(other),
      () => registry.writeBlob(other),
    ]) {
      expect(await withoutStat(folder.path, use)).toBeInstanceOf(Error);
      expect(openFiles(process.pid)).toBe(before);
    }
  });
});

test("a file without a size, and one of another size, is closed", async () => {
  using folder = temporaryFolder();
  const layout = openLayout(folder.path, { host: realHost });
  await layout.writeBlob({ ...BLOB, content: BYTES });
  const before = openFiles(process.pid);
  const range = { offset: 5, length: BYTES.length };
  await expect(layout.readBlob(BLOB.digest, { range })).rejects.toMatchObject({ code: "corrupt" });
  expect(openFiles(process.pid)).toBe(before);
});

test("a lock file that is none is closed", async () => {
  using folder = temporaryFolder();
  const file = join(folder.path, "lock");
  writeFileSync(file, "something else ".repeat(100));
  const before = openFiles(process.pid);
  const options = { host: realHost, timeoutMs: 0 };
  await expect(withLock(file, options, async () => {})).rejects.toMatchObject({ code: "filesystem" });
  expect(openFiles(process.pid)).toBe(before);
});

test("a layer that the local index cannot take is not downloaded to its end", async () => {
  let cancelled = 0;
  const store = withMethods(new MemoryStore(), {
    readBlob: async () => new ReadableStream<Uint8Array>({ cancel: () => void cancelled++ }),
  });
  const change = {
    addLayer() {
      throw new Error("database or disk is full");
    },
  } as unknown as IndexUpdate;
  await expect(loadLayer({ store, warn: () => {} }, change, BLOB)).rejects.toThrow("disk is full");
  expect(cancelled).toBe(1);
});

/** Blobs in the making: what they leave on disk, whatever happens. */
import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { NixcacheError } from "../../../src/errors.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { type BlobWriter, discardBlob, Spool, streamBlob } from "../../../src/oci/spool.ts";
import { Compressor, PathError } from "../../../src/publish/nar-file.ts";
import { publish } from "../../../src/publish/publish.ts";
import { silentProgress } from "../../../src/terminal/progress.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { party } from "../../support/protocol.ts";
import { noise, testClosure } from "../../support/publish.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

const MIB = 1024 * 1024;
const LOG = noise("log", MIB);

/** Files in the folders of runs. */
function spooled(folder: string): string[] {
  const runs = readdirSync(folder).filter((name) => name.startsWith("nixcache-spool-"));
  return runs.flatMap((run) => readdirSync(join(folder, run)));
}

const fill = (bytes: Uint8Array) => async (writer: BlobWriter) => {
  for (let at = 0; at < bytes.length; at += MIB) await writer.write(bytes.slice(at, at + MIB));
};

describe("a blob in the making", () => {
  test.each([0, 1, 8 * MIB, 9 * MIB])(
    "of %d bytes comes back whole, and is gone when it is discarded",
    async (size) => {
      using folder = temporaryFolder();
      using spool = new Spool(folder.path);
      const bytes = noise("blob", size);
      const blob = await spool.make(fill(bytes));
      expect([blob.size, blob.digest]).toEqual([size, digestOf(bytes)]);
      expect(await new Response(streamBlob(blob)).bytes()).toEqual(bytes);
      expect(spooled(folder.path)).toHaveLength(size > 8 * MIB ? 1 : 0);
      discardBlob(blob);
      expect(spooled(folder.path)).toEqual([]);
    },
  );

  test("leaves nothing when what makes it fails, and the next one is whole", async () => {
    using folder = temporaryFolder();
    using spool = new Spool(folder.path);
    const failing = spool.make(async (writer) => {
      await fill(noise("a", 9 * MIB))(writer);
      expect(spooled(folder.path)).toHaveLength(1);
      throw new Error("no more of it");
    });
    await expect(failing).rejects.toThrow("no more of it");
    expect(spooled(folder.path)).toEqual([]);
    const next = await spool.make(fill(noise("b", 9 * MIB)));
    expect(next.digest).toBe(digestOf(noise("b", 9 * MIB)));
  });

  test("is gone with its run", async () => {
    using folder = temporaryFolder();
    const spool = new Spool(folder.path);
    await spool.make(fill(noise("a", 9 * MIB)));
    spool[Symbol.dispose]();
    expect(readdirSync(folder.path)).toEqual([]);
  });
});

describe("a publish leaves no file of a blob", () => {
  /** Packs and large NARs that go to disk, of which some cannot be read or sent. */
  async function spooledAfter(fails: "dump" | "path" | "store" | "stops"): Promise<string[]> {
    const store = new MemoryStore();
    using machine = party(store);
    const folder = join(machine.database.path, "..");
    const paths = [
      ...Array.from({ length: 9 }, (_, at) => ({ name: `small-${at}`, size: MIB - 1 })),
      { name: "large", size: 14 * MIB },
    ];
    const { closure, dump } = testClosure(paths);
    let dumps = 0;
    let writes = 0;
    store.before = (call) => {
      if (call === "writeBlob" && ++writes > 1 && fails === "store")
        throw new NixcacheError("denied", "no right to write");
    };
    const until = new AbortController();
    const failing = async function* (...args: Parameters<typeof dump>) {
      dumps++;
      for await (const chunk of dump(...args)) {
        yield chunk;
        if (dumps < 9) continue;
        if (fails === "dump") throw new Error("a defect");
        if (fails === "path") throw new PathError("nix-store", "cannot be read");
        if (fails === "stops") until.abort();
      }
    };
    const context = {
      ...machine,
      upstreams: [],
      dump: failing,
      // What stands behind the NARs makes a pack larger than memory takes.
      buildLog: () => LOG,
      key: undefined,
      compressor: new Compressor(1, 2),
      partBytes: 9 * MIB,
      unitsAtOnce: 2,
      progress: silentProgress(),
    };
    const deriver = (name: string) => `/nix/store/${"1".repeat(32)}-${name}.drv`;
    const withLogs = closure.map((info, at) => ({ ...info, deriver: deriver(String(at)) }));
    const origin = { tool: "test", source: "paths", roots: {} };
    await publish(withLogs, origin, context, { until: until.signal }).catch(() => {});
    return spooled(folder);
  }

  test.each(["dump", "path", "store", "stops"] as const)("when the %s fails", async (fails) => {
    expect(await spooledAfter(fails)).toEqual([]);
  });
});

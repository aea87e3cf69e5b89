/** A full disk, under each of the things that are written: an error with a sentence, and the old state stays. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { auditCache } from "../support/audit.ts";
import { type Cli, type CliResult, openCli, type Variables } from "../support/cli.ts";
import { hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, type TestNix } from "../support/nix.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { expectRefusal } from "../support/refusal.ts";
import { canMount, mountSmallDisk, type SmallDisk } from "../support/small-disk.ts";
import { storeVariables } from "../support/substitute.ts";

const MIB = 1024 ** 2;
const FULL = 7;

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

describe.skipIf(!canMount() && process.env.CI !== "true")("a full disk", () => {
  describeWith(["nix"], "under", () => {
    let cli: Cli;
    let nix: TestNix;
    let paths: string[];
    /** More than is kept in memory, and nothing of it compresses. */
    let large: string;
    let disks = 0;

    beforeAll(async () => {
      cli = cleanup.add(await openCli());
      nix = cleanup.add(await openNix()).value;
      paths = [...(await buildClosure(nix, { paths: 40, seed: 12 })).paths].sort();
      const file = join(nix.folder, "large");
      await writeRandomFile(file, 12 * MIB, 7);
      large = (await nix.run("nix-store", ["--add", file])).trim();
    });

    const disk = async (size: number): Promise<SmallDisk> =>
      cleanup.add(await mountSmallDisk(cli.path(`disk-${++disks}`), size));
    const publish = (cache: string, own: readonly string[], env: Variables = {}): Promise<CliResult> =>
      cli.run(["publish", ...own, "--cache", cache, "--upstream", ""], {
        env: { ...storeVariables(nix), ...env },
      });

    test("a layout", async () => {
      const small = await disk(8 * MIB);
      const cache = join(small.folder, "cache");
      expect(await publish(cache, paths)).toMatchObject({ code: 0 });
      expectRefusal(await publish(cache, [large]), {
        code: FULL,
        says: small.folder,
        hints: /free some space/i,
      });
      expect(await auditCache(cache)).toEqual(paths);
      // Not even room for a byte: the next writes are refused at once, and what is there still reads.
      await small.fill(0);
      const again = await publish(cache, [large], { NIXCACHE_INDEX_DIR: cli.path("index-of-a-full-disk") });
      expectRefusal(again, { code: FULL, says: small.folder });
      expect(await auditCache(cache)).toEqual(paths);
      await small.free();
      expect(await publish(cache, paths)).toMatchObject({ code: 0 });
    });

    test("the temporary folder", async () => {
      const small = await disk(2 * MIB);
      const cache = cli.path("cache-spooled");
      expect(await publish(cache, paths)).toMatchObject({ code: 0 });
      const refused = await publish(cache, [large], { TMPDIR: small.folder });
      expectRefusal(refused, { code: FULL, says: small.folder, hints: /space|TMPDIR/ });
      expect(await auditCache(cache)).toEqual(paths);
      const left = Bun.spawnSync(["ls", "-A", small.folder]).stdout.toString();
      expect(left).toBe("");
    });

    test("the local index: publish stops, serve goes on with what it had", async () => {
      const small = await disk(4 * MIB);
      const cache = cli.path("cache-indexed");
      const [first] = paths as [string];
      expect(await publish(cache, [first])).toMatchObject({ code: 0 });
      const had = await auditCache(cache);
      const env = { NIXCACHE_INDEX_DIR: small.folder };
      const server = await cli.serve(["--cache", cache, "--upstream", ""], { env });
      const refresh = () => server.get("/_refresh", { method: "POST" });
      expect((await refresh()).status).toBe(200);

      expect(await publish(cache, paths)).toMatchObject({ code: 0 });
      await small.fill(0);
      const failed = await refresh();
      expect(failed.status).toBe(502);
      expect(await failed.text()).toMatch(
        /^the index could not be refreshed of .*: cannot use the local index .*(full|no space)/,
      );
      const status = async (path: string) => (await server.get(`/${hashPart(path)}.narinfo`)).status;
      for (const path of had) expect(await status(path)).toBe(200);
      const added = paths.find((path) => !had.includes(path)) as string;
      expect(await status(added)).toBe(404);
      expect((await server.get("/nix-cache-info")).status).toBe(200);

      expectRefusal(await publish(cache, [large], env), {
        code: FULL,
        says: /cannot use the local index/,
        hints: /NIXCACHE_INDEX_DIR/,
      });
      expect(await auditCache(cache)).toEqual(paths);

      await small.free();
      expect((await refresh()).status).toBe(200);
      expect(await status(added)).toBe(200);
      expect(await server.stop()).toBe(0);
    });
  });
});

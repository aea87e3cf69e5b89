/** `nixcache verify` on caches that real publishes made, whole and damaged. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { cp, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { layoutBlob } from "../support/cache-files.ts";
import { type Cli, type CliResult, openCli } from "../support/cli.ts";
import { hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, type TestNix } from "../support/nix.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

const LARGE_BYTES = 3 * 1024 ** 2;

describeWith(["nix", "registry"], "verify", () => {
  let cli: Cli;
  let nix: TestNix;
  let registry: TestRegistry;
  let root: string;
  let large: string;
  let copies = 0;

  const publish = (cache: string) =>
    cli.run(
      ["publish", root, large, "--cache", cache, "--upstream", "", "--signing-key-file", cli.path("secret")],
      { env: { ...storeVariables(nix), ...index(cache) } },
    );

  const verify = (cache: string, ...flags: string[]): Promise<CliResult> =>
    cli.run(["verify", "--cache", cache, "--upstream", "", ...flags], { env: index(cache) });

  /** A local index for each cache, as if each were on a machine of its own. */
  const index = (cache: string) => ({ NIXCACHE_INDEX_DIR: cli.path(`index-${Bun.hash(cache)}`) });

  async function copy(): Promise<string> {
    const folder = cli.path(`copy-${++copies}`);
    await cp(cli.path("cache"), folder, { recursive: true });
    return folder;
  }

  /** The blob of the large NAR: of all, the one with about its size. */
  async function largeBlob(folder: string): Promise<string> {
    for (const name of await readdir(join(folder, "blobs", "sha256"))) {
      if (Math.abs(Bun.file(layoutBlob(folder, name)).size - LARGE_BYTES) < 10_000)
        return layoutBlob(folder, name);
    }
    throw new Error("no blob of the large NAR");
  }

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    root = (await buildClosure(nix, { paths: 20, seed: 5 })).root;
    const file = join(nix.folder, "large");
    await writeRandomFile(file, LARGE_BYTES, 5);
    large = (await nix.run("nix-store", ["--add", file])).trim();
    await cli.run(["keygen", "verify-1", cli.path("secret"), cli.path("public")]);
    for (const cache of [cli.path("cache"), `${registry.host}/verify`]) {
      expect(await publish(cache)).toMatchObject({ code: 0 });
    }
  });

  test("a cache that was published is clean on both stores, with every byte", async () => {
    for (const cache of [cli.path("cache"), `${registry.host}/verify`]) {
      const { code, stdout, stderr } = await verify(cache, "--deep", "--json");
      expect(stderr).toMatch(/^\[success\] .* is clean: 1 generation, 21 paths, /);
      expect(code).toBe(0);
      expect(JSON.parse(stdout)).toMatchObject({ clean: true, entries: 21, unsigned: 0, findings: [] });
    }
  });

  test("a blob that is gone is exit code 14, and after a repair and a publish all is there again", async () => {
    const cache = await copy();
    await rm(await largeBlob(cache));
    const damaged = await verify(cache);
    expect(damaged.code).toBe(14);
    expect(damaged.stderr).toContain("is not in the store");
    expect(damaged.stderr).toContain("verify --repair");
    const repaired = await verify(cache, "--repair");
    expect(repaired.code).toBe(14);
    expect(repaired.stderr).toContain(`no longer in the cache: ${large}`);
    expect(await verify(cache, "--deep")).toMatchObject({ code: 0 });
    const server = await cli.serve(["--cache", cache, "--upstream", ""], { env: index(cache) });
    await server.get("/_refresh", { method: "POST" });
    expect((await server.get(`/${hashPart(large)}.narinfo`)).status).toBe(404);
    expect((await server.get(`/${hashPart(root)}.narinfo`)).status).toBe(200);
    await server.stop();
    const again = await publish(cache);
    expect(again.stderr).toContain("published 1 path");
    const { stdout } = await verify(cache, "--deep", "--json");
    expect(JSON.parse(stdout)).toMatchObject({ clean: true, entries: 21 });
  });

  test("a flipped byte is found by --deep alone", async () => {
    const cache = await copy();
    const blob = await largeBlob(cache);
    const bytes = await Bun.file(blob).bytes();
    bytes[1000] = (bytes[1000] ?? 0) ^ 1;
    await Bun.write(blob, bytes);
    expect(await verify(cache)).toMatchObject({ code: 0 });
    const deep = await verify(cache, "--deep");
    expect(deep.code).toBe(14);
    expect(deep.stderr).toContain("has other bytes than its digest says");
  });

  test("a registry that is not there is its own error", async () => {
    expect(await verify("127.0.0.1:1/x")).toMatchObject({ code: 8 });
  });
});

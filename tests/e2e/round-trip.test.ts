/**
 * The way of a closure on real parts: from a Nix store into both kinds of cache, and through `serve` into empty
 * stores that check signatures.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { registryBlobs, snapshot } from "../support/cache-files.ts";
import { type Cli, type CliResult, type CliServer, openCli } from "../support/cli.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, type TestClosure, type TestNix } from "../support/nix.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { openClient, storeVariables } from "../support/substitute.ts";

const MIB = 1024 ** 2;
const BIG_BYTES = 1200 * MIB;
/** Zeros compress to next to nothing; these do not. */
const RANDOM_BYTES = 256 * MIB;
const PATHS = 200;
const MAX_PUBLISH_RSS = 300 * MIB;
const MAX_SERVE_RSS = 150 * MIB;

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let registry: TestRegistry;
let publicKey: string;

/** A server's index is its own, so that it reads the cache and not what the publisher has left on this machine. */
function serve(cache: string, index: string): Promise<CliServer> {
  const env = { NIXCACHE_INDEX_DIR: cli.path(index) };
  return cli.serve(["--cache", cache, "--upstream", ""], { env });
}

function publish(cache: string, ...args: string[]): Promise<CliResult> {
  const all = ["publish", ...args, "--cache", cache, "--upstream", "", "--signing-key-file", cli.path("s")];
  return cli.run([...all, "--json"], { env: storeVariables(nix) });
}

async function indexed(server: CliServer): Promise<CliServer> {
  expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
  return server;
}

const mib = (bytes: number) => `${Math.round(bytes / MIB)} MiB`;

describeWith(["nix", "registry"], "round trip", () => {
  let closure: TestClosure;

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    await cli.run(["keygen", "round-trip-1", cli.path("s"), cli.path("p")]);
    publicKey = await readFile(cli.path("p"), "utf8");
    closure = await buildClosure(nix, { paths: PATHS, seed: 1, big: BIG_BYTES });
  });

  describe.each(["layout", "registry"])("through a %s", (kind) => {
    let cache: string;
    let published: CliResult;
    let server: CliServer;
    /** Everything that the cache has stored, as its files. */
    let files: string;

    beforeAll(async () => {
      cache = kind === "layout" ? cli.path("layout") : `${registry.host}/owner/repo/nix-cache`;
      files = kind === "layout" ? cache : registry.folder;
      published = await publish(cache, closure.root);
      server = await indexed(await serve(cache, `index-${kind}`));
    });
    afterAll(async () => {
      await server?.stop();
    });

    test("publish uploads the whole closure and says so", () => {
      expect(published).toMatchObject({ code: 0 });
      const summary = JSON.parse(published.stdout);
      expect(summary.paths).toEqual({ closure: PATHS, upstream: 0, restated: 0, uploaded: PATHS });
      expect(summary.leftOut).toEqual([]);
      expect(summary.bytes.nar).toBeGreaterThan(BIG_BYTES);
      expect(published.stderr).toContain(`published ${PATHS} paths`);
    });

    test("nix copy --from fills an empty store, and every byte of it is right", async () => {
      const client = await openClient(nix, publicKey);
      await client.copy(server.url, [closure.root]);
      expect(await client.paths()).toEqual([...closure.paths].sort());
      await client.verify();
    });

    test("nix-store --realise fills an empty store, and every byte of it is right", async () => {
      const client = await openClient(nix, publicKey);
      await client.realise(server.url, [closure.root]);
      expect(await client.paths()).toEqual([...closure.paths].sort());
      await client.verify();
    });

    test("a store that trusts another key of the same name takes nothing", async () => {
      const client = await openClient(nix, `round-trip-1:${Buffer.alloc(32, 7).toString("base64")}`);
      const built = closure.paths.find((path) => path.endsWith("-t1-root")) as string;
      await expect(client.copy(server.url, [built])).rejects.toThrow(/lacks a (valid )?signature/);
      await expect(client.realise(server.url, [built])).rejects.toThrow();
      expect(await client.paths()).not.toContain(built);
    });

    test("defect 10: memory stays bounded with a NAR of over 1 GiB", () => {
      console.log(`${kind}: publish ${mib(published.peakRss)}, serve ${mib(server.peakRss())}`);
      expect(published.peakRss).toBeGreaterThan(0);
      expect(published.peakRss).toBeLessThan(MAX_PUBLISH_RSS);
      expect(server.peakRss()).toBeLessThan(MAX_SERVE_RSS);
    });

    test("publishing again writes not a single file into the cache, and says that there is nothing to upload", async () => {
      const before = await snapshot(files);
      const again = await publish(cache, closure.root);
      expect(again).toMatchObject({ code: 0 });
      expect(JSON.parse(again.stdout)).toMatchObject({
        generation: null,
        paths: { closure: PATHS, upstream: 0, restated: PATHS, uploaded: 0 },
        bytes: { nar: 0, sent: 0 },
      });
      expect(again.stderr).toContain("nothing to upload");
      expect(await snapshot(files)).toEqual(before);
    });

    test("publishing again from another machine, without its local index, uploads nothing either", async () => {
      const before = await snapshot(files);
      const args = ["publish", closure.root, "--cache", cache, "--upstream", "", "--json"];
      const again = await cli.run([...args, "--signing-key-file", cli.path("s")], {
        env: { ...storeVariables(nix), NIXCACHE_INDEX_DIR: cli.path(`another-${kind}`) },
      });
      expect(again).toMatchObject({ code: 0 });
      expect(JSON.parse(again.stdout)).toMatchObject({ generation: null, bytes: { nar: 0, sent: 0 } });
      expect(await snapshot(files)).toEqual(before);
    });
  });

  test("a NAR that does not compress is cut into parts, comes back whole, and costs no memory", async () => {
    const file = join(nix.folder, "random");
    await writeRandomFile(file, RANDOM_BYTES, 3);
    const path = (await nix.run("nix-store", ["--add", file])).trim();
    const cache = `${registry.host}/parts`;
    const before = await registryBlobs(registry.folder);
    const published = await publish(cache, path, "--part-size", "48M");
    expect(published).toMatchObject({ code: 0 });

    const added = [...(await registryBlobs(registry.folder))].filter(([digest]) => !before.has(digest));
    const parts = added.map(([, size]) => size).filter((size) => size > MIB);
    expect(parts.length).toBeGreaterThan(3);
    expect(Math.max(...parts)).toBeLessThanOrEqual(48 * MIB);

    const server = await indexed(await serve(cache, "index-parts"));
    const client = await openClient(nix, publicKey);
    await client.realise(server.url, [path]);
    await client.verify();
    expect(await sha256(nix.realPath(path, client.root))).toBe(await sha256(file));
    console.log(`parts: publish ${mib(published.peakRss)}, serve ${mib(server.peakRss())}`);
    expect(published.peakRss).toBeLessThan(MAX_PUBLISH_RSS);
    expect(server.peakRss()).toBeLessThan(MAX_SERVE_RSS);
    await server.stop();
  });
});

async function sha256(file: string): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const chunk of Bun.file(file).stream()) hasher.update(chunk);
  return hasher.digest("hex");
}

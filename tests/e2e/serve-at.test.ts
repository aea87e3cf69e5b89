/** `serve --at`: the cache as it was, through the life of a generation until it is deleted. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { ROOT } from "../../scripts/process.ts";
import { type Cli, type CliResult, type CliServer, openCli, type Variables } from "../support/cli.ts";
import { downloadAll, hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, shellDerivation, type TestClosure, type TestNix } from "../support/nix.ts";
import { expectRefused } from "../support/refusal.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { openClient, storeVariables } from "../support/substitute.ts";

const DAY_MS = 24 * 3_600_000;

/** The sources with a clock that is ahead. */
const SKEWED = [process.execPath, "--preload", `${ROOT}/tests/support/clock.ts`, `${ROOT}/src/main.ts`];

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let registry: TestRegistry;
let closure: TestClosure;
let later: string;
let publicKey: string;
let caches = 0;

const index = (cache: string): Variables => ({ NIXCACHE_INDEX_DIR: cli.path(`index-${Bun.hash(cache)}`) });

/** @param days by which the publisher's clock is ahead */
async function publish(cache: string, path: string, days = 0): Promise<string> {
  const args = [
    "publish",
    path,
    "--cache",
    cache,
    "--upstream",
    "",
    "--signing-key-file",
    cli.path("s"),
    "--json",
  ];
  const env = { ...storeVariables(nix), ...index(cache), CLOCK_SKEW_MS: String(days * DAY_MS) };
  const { code, stdout, stderr } = await cli.run(args, { env, ...(days > 0 && { program: SKEWED }) });
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout).generation;
}

/** A cache with a generation of the closure and then one of another path, so many days younger. */
async function newCache(kind: string, days = 0): Promise<{ cache: string; first: string; second: string }> {
  const name = `at-${++caches}`;
  const cache = kind === "a folder" ? cli.path(name) : `${registry.host}/${name}`;
  return { cache, first: await publish(cache, closure.root), second: await publish(cache, later, days) };
}

/** Collects garbage by a clock that is so many days ahead. */
function collect(cache: string, days: number): Promise<CliResult> {
  const env = { ...index(cache), CLOCK_SKEW_MS: String(days * DAY_MS) };
  return cli.run(["gc", "--cache", cache], { env, program: SKEWED });
}

async function serve(cache: string, at: string, env = index(cache)): Promise<CliServer> {
  return cli.serve(["--cache", cache, "--upstream", "", "--at", at], { env });
}

const refresh = (server: CliServer) => server.get("/_refresh", { method: "POST" });
const narinfo = async (server: CliServer, path: string) =>
  (await server.get(`/${hashPart(path)}.narinfo`)).status;

describeWith(["nix", "registry"], "serve --at", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    closure = await buildClosure(nix, { paths: 25, seed: 21, big: 3 * 1024 ** 2 });
    later = await nix.build(shellDerivation("later-1.0", "echo later > $out"));
    await cli.run(["keygen", "at-1", cli.path("s"), cli.path("p")]);
    publicKey = await Bun.file(cli.path("p")).text();
  });

  describe.each(["a folder", "a registry"])("of %s", (kind) => {
    test("Nix substitutes what was, and nothing newer, whatever is published meanwhile", async () => {
      const { cache, first, second } = await newCache(kind);
      const server = await serve(cache, first);
      expect((await refresh(server)).status).toBe(200);
      await downloadAll(server, closure.paths, nix);
      expect(await narinfo(server, later)).toBe(404);
      const client = await openClient(nix, publicKey);
      await client.copy(server.url, [closure.root]);
      await client.verify();
      expect(await client.paths()).toEqual([...closure.paths].sort());

      const third = await nix.build(shellDerivation(`third-${kind.at(-1)}`, "echo third > $out"));
      await publish(cache, third);
      const status = await (await refresh(server)).json();
      expect(status).toMatchObject({
        ...{
          generation: first,
          index_generations: 1,
          index_entries: closure.paths.length,
          index_error: null,
        },
        caches: [{ generation: first }],
      });
      for (const path of [later, third]) expect(await narinfo(server, path)).toBe(404);
      expect(await (await server.get("/metrics")).text()).toMatch(
        new RegExp(`^nixcache_index_generation_info\\{cache="[^"]+",generation="${first}"\\} 1$`, "m"),
      );
      expect(await (await server.get("/")).text()).toContain(first);
      expect(await server.stop()).toBe(0);
      expect(server.log()).toContain(`serving the cache as it was in ${first}`);

      // Its index is its own: that of the cache has everything, and the other generation another one.
      const whole = await cli.serve(["--cache", cache, "--upstream", ""], { env: index(cache) });
      expect(await (await refresh(whole)).json()).toMatchObject({ generation: null, index_generations: 3 });
      expect(await narinfo(whole, third)).toBe(200);
      await whole.stop();
      const other = await serve(cache, `seg-${second}`);
      expect(await (await refresh(other)).json()).toMatchObject({ generation: second, index_entries: 1 });
      await other.stop();
      const files = await readdir(index(cache).NIXCACHE_INDEX_DIR as string);
      const indexes = files.filter((name) => name.endsWith(".sqlite"));
      expect(indexes.filter((name) => name.endsWith(`-${first}.sqlite`))).toHaveLength(1);
      // Of two generations, of what the publisher's key has signed, and of everything.
      expect(indexes).toHaveLength(4);
    });

    test("one that has ended is served until it is deleted, and `why` tells of it", async () => {
      const { cache, first } = await newCache(kind, 39);
      const fresh = { NIXCACHE_INDEX_DIR: cli.path(`other-${caches}`) };
      // Bare paths live for 30 days.
      expect(await collect(cache, 40)).toMatchObject({ code: 0 });
      const why = async (env: Variables) => {
        const { code, stdout } = await cli.run(["why", closure.root, "--cache", cache, "--json"], { env });
        return { code, ...JSON.parse(stdout) };
      };
      const ended = await why(fresh);
      expect(ended).toMatchObject({
        ...{ code: 17, path: closure.root, held: false, generations: [], leftIndexAt: null },
        lastHolder: { generation: first },
      });
      expect(Math.abs(Date.parse(ended.lastHolder.endedAt) - Date.now() - 40 * DAY_MS)).toBeLessThan(600_000);
      // The index of whoever published has had it.
      expect((await why(index(cache))).leftIndexAt).not.toBeNull();

      const server = await serve(cache, first.slice(0, -1), fresh);
      expect((await refresh(server)).status).toBe(200);
      const client = await openClient(nix, publicKey);
      await client.copy(server.url, [closure.root]);
      expect(await client.paths()).toEqual([...closure.paths].sort());

      expect(await collect(cache, 43)).toMatchObject({ code: 0 });
      const refused = await refresh(server);
      expect(refused.status).toBe(502);
      expect(await refused.text()).toContain(`seg-${first} of`);
      expect(await narinfo(server, closure.root)).toBe(200);
      await server.stop();

      const gone = await why({ NIXCACHE_INDEX_DIR: cli.path(`third-${caches}`) });
      expect(gone).toMatchObject({ code: 17, path: null, lastHolder: null, leftIndexAt: null });
      for (const at of [first, `seg-${first}`]) {
        const env = { NIXCACHE_INDEX_DIR: cli.path(`fourth-${caches}`) };
        const { code, stderr } = await cli.run(
          ["serve", "--port", "0", "--cache", cache, "--upstream", "", "--at", at],
          { env },
        );
        expect([at, code]).toEqual([at, 17]);
        expect(stderr).toContain("is not there any more");
      }
    });
  });

  test("by its whole name it starts without the registry, once it was read", async () => {
    const { cache, first } = await newCache("a registry");
    const before = await serve(cache, first);
    expect((await refresh(before)).status).toBe(200);
    await before.stop();
    await registry.stop();
    try {
      const server = await serve(cache, first);
      expect(await narinfo(server, closure.root)).toBe(200);
      expect((await server.get("/nix-cache-info")).status).toBe(200);
      await server.stop();
    } finally {
      await registry.start();
    }
  });

  describe("is refused", () => {
    const refused = (args: string[], code: number, says: string) =>
      expectRefused(cli, ["serve", "--port", "0", "--upstream", "", ...args], { code, says });

    test("with --writable, and with more than one cache", async () => {
      const { cache, first } = await newCache("a folder");
      await refused(["--cache", cache, "--at", first, "--writable"], 2, "--at: got --writable as well");
      await refused(["--cache", cache, "--cache", cli.path("b"), "--at", first], 2, "--at: got 2 caches");
    });

    test("for what is no generation, or could be two", async () => {
      const { cache, first } = await newCache("a folder");
      await refused(["--cache", cache, "--at", "nonsense"], 17, 'no generation is called "nonsense"');
      await refused(["--cache", cache, "--at", first.slice(0, 8)], 2, "could be 2 generations");
      await refused(["--cache", cache, "--at", "latest~1"], 17, "latest~1");
      await refused(["--cache", cli.path("empty"), "--at", "latest"], 17, "the cache has none");
    });
  });
});

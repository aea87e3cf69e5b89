/** `nixcache serve` over HTTP: its routes, its configuration, and what it passes on from upstream. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, symlink } from "node:fs/promises";
import { type Cli, type CliServer, openCli, type RunOptions, type Variables } from "../support/cli.ts";
import { hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { shellDerivation, type TestNix } from "../support/nix.ts";
import { rawRequest } from "../support/raw-http.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

const ABSENT = "0".repeat(32);
/** Milliseconds in which a dead upstream must have been given up. */
const SOON_MS = 3_000;

let cli: Cli;
let nix: TestNix;
let registry: TestRegistry;
let store: Record<string, string>;
let path: string;
let publicKey: string;
let indexes = 0;

const fresh = (env: RunOptions["env"] = {}): RunOptions => ({
  env: { NIXCACHE_INDEX_DIR: cli.path(`index-${++indexes}`), ...env },
});

async function publish(args: readonly string[], env: RunOptions["env"] = {}): Promise<void> {
  const all = ["publish", ...args, "--upstream", "", "--signing-key-file", cli.path("s")];
  expect(await cli.run(all, { env: { ...store, ...env } })).toMatchObject({ code: 0 });
}

/** A server with the cache's index loaded. */
async function serve(args: readonly string[], options = fresh()): Promise<CliServer> {
  const server = await cli.serve(args, options);
  expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
  return server;
}

async function narUrl(server: CliServer, of = path): Promise<string> {
  const narinfo = await (await server.get(`/${hashPart(of)}.narinfo`)).text();
  return `/${/^URL: (.*)$/m.exec(narinfo)?.[1]}`;
}

describeWith(["nix", "registry"], "serve", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    store = storeVariables(nix);
    path = await nix.build(shellDerivation("served", "echo content > $out"));
    await cli.run(["keygen", "serve-1", cli.path("s"), cli.path("p")]);
    publicKey = await Bun.file(cli.path("p")).text();
    await publish([path, "--cache", cli.path("cache")]);
  });

  describe("routes", () => {
    let server: CliServer;
    beforeAll(async () => {
      server = await serve(["--cache", cli.path("cache"), "--upstream", ""]);
    });
    afterAll(() => server?.stop());

    test("GET and HEAD of each route agree in status and headers, and HEAD has no body", async () => {
      const nar = await narUrl(server);
      const routes = ["/nix-cache-info", `/${hashPart(path)}.narinfo`, nar, "/public-key", "/_status"];
      for (const route of [...routes, `/${ABSENT}.narinfo`, "/nar/absent.nar.zst", "/unknown"]) {
        const [get, head] = [await server.get(route), await server.get(route, { method: "HEAD" })];
        const body = await get.bytes();
        expect([route, get.status]).toEqual([route, routes.includes(route) ? 200 : 404]);
        expect([route, head.status]).toEqual([route, get.status]);
        expect(head.headers.get("content-type")).toBe(get.headers.get("content-type"));
        expect([route, head.headers.get("content-length")]).toEqual([route, String(body.length)]);
        expect((await head.bytes()).length).toBe(0);
        expect(get.headers.get("content-encoding")).toBeNull();
      }
    });

    test("nix-cache-info is what Nix reads", async () => {
      expect(await (await server.get("/nix-cache-info")).text()).toMatch(
        /^StoreDir: \/nix\/store\nWantMassQuery: 1\nPriority: \d+\n$/,
      );
    });

    test("the public key is the publisher's", async () => {
      expect(await (await server.get("/public-key")).text()).toBe(`${publicKey}\n`);
    });

    test("_status tells of the index", async () => {
      expect(await (await server.get("/_status")).json()).toMatchObject({
        index_loaded: true,
        index_entries: 1,
        index_generations: 1,
        index_error: null,
        upstream: [],
      });
    });

    test("other methods are refused with what is allowed", async () => {
      for (const method of ["PUT", "POST", "DELETE"]) {
        const answer = await server.get(`/${hashPart(path)}.narinfo`, { method });
        expect([answer.status, answer.headers.get("allow")]).toEqual([405, "GET, HEAD"]);
      }
      expect((await server.get("/_refresh")).status).toBe(405);
    });

    test("paths that mean nothing and path tricks are 404, malformed escapes 400, and end nothing", async () => {
      const tricks = [
        ...["/_page/", "/_page/page.js", "/nar/", "/nar", "/.narinfo", "/%ff.narinfo", "/nar/a%2fb"],
        ...["/../../etc/passwd", "/nar/../../etc/passwd", "/nar/..%2f..%2fetc%2fpasswd", "/nar/%2e%2e/x"],
        ...["/nar/../x", "/nar/.", "/nar\\..\\x", `/${ABSENT.toUpperCase()}.narinfo`, `/${ABSENT}x.narinfo`],
        ...["/debuginfo/0123", `/log/${ABSENT}-x.drv`, "/realisations/sha256:0!out.doi", `/${ABSENT}.ls`],
        ...["/constructor", "/__proto__", `/${"a".repeat(4_000)}`],
      ];
      for (const trick of tricks) {
        const { status } = await rawRequest(server.url, `GET ${trick} HTTP/1.1\r\nHost: localhost`);
        expect([trick, status]).toEqual([trick, 404]);
      }
      for (const malformed of ["/nar/%zz", "/%", "/nar/%00"]) {
        expect((await rawRequest(server.url, `GET ${malformed} HTTP/1.1\r\nHost: x`)).status).toBe(400);
      }
      expect((await server.get("/nix-cache-info")).status).toBe(200);
    });

    test("a narinfo may be asked for with escapes, a query, and without a Host", async () => {
      const name = `/${hashPart(path)}.narinfo`;
      for (const asked of [name.replace(".", "%2E"), `${name}?x=1`]) {
        expect((await rawRequest(server.url, `GET ${asked} HTTP/1.1\r\nHost: x`)).status).toBe(200);
      }
      expect((await rawRequest(server.url, `GET ${name} HTTP/1.0`)).status).toBe(200);
    });
  });

  test("_refresh picks up what was published since", async () => {
    const cache = cli.path("growing");
    const server = await cli.serve(["--cache", cache, "--upstream", ""], fresh());
    const narinfo = `/${hashPart(path)}.narinfo`;
    expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
    expect((await server.get(narinfo)).status).toBe(404);
    await publish([path, "--cache", cache]);
    expect((await server.get(narinfo)).status).toBe(404);
    const refreshed = await server.get("/_refresh", { method: "POST" });
    expect(await refreshed.json()).toMatchObject({ index_entries: 1 });
    expect((await server.get(narinfo)).status).toBe(200);
    await server.stop();
  });

  describe("configuration", () => {
    const entries = async (args: readonly string[], env: Variables) => {
      const server = await serve(args, { env });
      const status = (await (await server.get("/_status")).json()) as {
        index_entries: number;
        upstream: string[];
      };
      await server.stop();
      return status;
    };

    test("flags win over the environment", async () => {
      const env = {
        NIXCACHE_CACHE: cli.path("no-such-cache"),
        NIXCACHE_UPSTREAM: "http://127.0.0.1:1 http://127.0.0.1:2",
        NIXCACHE_PORT: "1",
        NIXCACHE_LISTEN: "192.0.2.1",
        NIXCACHE_INDEX_TTL: "7",
      };
      const args = [
        "--cache",
        cli.path("cache"),
        "--listen",
        "127.0.0.1",
        "--upstream",
        "",
        "--index-ttl",
        "9",
      ];
      expect(await entries(args, env)).toMatchObject({ index_entries: 1, upstream: [], index_ttl: 9 });
    });

    test("the environment says what flags do not", async () => {
      const env = {
        NIXCACHE_CACHE: cli.path("cache"),
        NIXCACHE_UPSTREAM: "http://127.0.0.1:1 http://127.0.0.1:2",
        NIXCACHE_INDEX_TTL: "7",
        NIXCACHE_PORT: "0",
        NIXCACHE_LISTEN: "127.0.0.1",
      };
      expect(await entries([], env)).toMatchObject({
        index_entries: 1,
        upstream: ["http://127.0.0.1:1", "http://127.0.0.1:2"],
        index_ttl: 7,
      });
    });

    test("NIXCACHE_REPO and NIXCACHE_REGISTRY name a registry's repository, in lower case", async () => {
      await publish([path, "--cache", `${registry.host}/owner/repo/nix-cache`]);
      const env = { NIXCACHE_REPO: "Owner/Repo", NIXCACHE_REGISTRY: registry.host, NIXCACHE_UPSTREAM: "" };
      expect(await entries([], env)).toMatchObject({
        index_entries: 1,
        repo: `${registry.host}/owner/repo/nix-cache`,
      });
    });

    test("CACHE_DIRECTORY, as systemd sets it, is where the index is kept", async () => {
      const folder = cli.path("systemd");
      const env = { NIXCACHE_INDEX_DIR: undefined, CACHE_DIRECTORY: folder };
      await entries(["--cache", cli.path("cache"), "--upstream", ""], env);
      expect(await Array.fromAsync(new Bun.Glob("*.sqlite").scan(folder))).toHaveLength(1);
    });

    test("with no set-up at all, publish ./result and serve find each other", async () => {
      const cwd = cli.path("no-set-up");
      await mkdir(cwd);
      await symlink(path, `${cwd}/result`);
      const env = { ...store, NIXCACHE_UPSTREAM: "" };
      expect(await cli.run(["publish", "./result"], { env, cwd })).toMatchObject({ code: 0 });
      expect(await Bun.file(cli.path("xdg-data", "nixcache", "cache", "oci-layout")).exists()).toBe(true);
      expect(await entries([], { NIXCACHE_UPSTREAM: "" })).toMatchObject({ index_entries: 1 });
    });
  });

  describe("upstream", () => {
    let upstream: CliServer;
    beforeAll(async () => {
      upstream = await serve(["--cache", cli.path("cache"), "--upstream", ""]);
    });
    afterAll(() => upstream?.stop());

    test("has what the cache has not: narinfo and NAR, for GET and HEAD, byte for byte", async () => {
      const server = await serve(["--cache", cli.path("empty"), "--upstream", upstream.url]);
      for (const route of [`/${hashPart(path)}.narinfo`, await narUrl(upstream)]) {
        const [ours, theirs] = [await server.get(route), await upstream.get(route)];
        expect([ours.status, await ours.bytes()]).toEqual([200, await theirs.bytes()]);
        expect((await server.get(route, { method: "HEAD" })).status).toBe(200);
      }
      expect((await server.get(`/${ABSENT}.narinfo`)).status).toBe(404);
      expect((await server.get("/nar/absent.nar.zst")).status).toBe(404);
      await server.stop();
    });

    test("that is dead does not stop the next one", async () => {
      const both = ["--upstream", "http://127.0.0.1:1", "--upstream", upstream.url];
      const server = await serve(["--cache", cli.path("empty"), ...both]);
      expect((await server.get(`/${hashPart(path)}.narinfo`)).status).toBe(200);
      expect((await server.get(await narUrl(upstream))).status).toBe(200);
      await server.stop();
    });

    test.each([429, 500, 503])("that answers %d, or is dead: narinfo 404, NAR 404, soon", async (status) => {
      const failing = Bun.serve({ port: 0, fetch: () => new Response("slow down", { status }) });
      for (const url of [`http://127.0.0.1:${failing.port}`, "http://127.0.0.1:1"]) {
        const server = await serve(["--cache", cli.path("empty"), "--upstream", url]);
        const started = performance.now();
        expect((await server.get(`/${ABSENT}.narinfo`)).status).toBe(404);
        expect((await server.get("/nar/absent.nar.zst")).status).toBe(404);
        expect(performance.now() - started).toBeLessThan(SOON_MS);
        await server.stop();
      }
      await failing.stop(true);
    });
  });
});

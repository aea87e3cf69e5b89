/**
 * `nixcache serve` when something behind it is broken: wrong bytes never end cleanly, and a cache out of reach
 * never breaks a build.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cp, readdir } from "node:fs/promises";
import { join } from "node:path";
import { layoutBlob, registryBlob, registryBlobs } from "../support/cache-files.ts";
import { type Cli, type CliServer, openCli } from "../support/cli.ts";
import { hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { shellDerivation, type TestNix } from "../support/nix.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { rawRequest } from "../support/raw-http.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { openClient, storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

const MIB = 1024 ** 2;
/** Milliseconds in which an answer must come while the registry is down. */
const SOON_MS = 5_000;

let cli: Cli;
let nix: TestNix;
let registry: TestRegistry;
let small: string;
let large: string;
let publicKey: string;
let indexes = 0;

async function publish(cache: string): Promise<void> {
  const args = ["--cache", cache, "--upstream", "", "--signing-key-file", cli.path("s"), "--part-size", "4M"];
  const result = await cli.run(["publish", small, large, ...args], { env: storeVariables(nix) });
  expect(result).toMatchObject({ code: 0 });
}

function serve(cache: string, upstream = "", index = `index-${++indexes}`): Promise<CliServer> {
  const env = { NIXCACHE_INDEX_DIR: cli.path(index) };
  return cli.serve(["--cache", cache, "--upstream", upstream], { env });
}

async function indexed(server: CliServer): Promise<CliServer> {
  expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
  return server;
}

async function narUrl(server: CliServer, path: string): Promise<string> {
  const narinfo = await (await server.get(`/${hashPart(path)}.narinfo`)).text();
  return `/${/^URL: (.*)$/m.exec(narinfo)?.[1]}`;
}

/** Blobs with NARs in them, by digest, the largest first; what is small is the pack, the index, or a manifest. */
async function narBlobs(folder: string): Promise<string[]> {
  const sizes: [string, number][] = [];
  for (const name of await readdir(join(folder, "blobs", "sha256"))) {
    sizes.push([`sha256:${name}`, Bun.file(layoutBlob(folder, name)).size]);
  }
  return sizes
    .filter(([, size]) => size > MIB)
    .sort(([, a], [, b]) => b - a)
    .map(([digest]) => digest);
}

async function flip(file: string, at: (size: number) => number): Promise<void> {
  const bytes = await Bun.file(file).bytes();
  const index = at(bytes.length);
  bytes[index] = (bytes[index] ?? 0) ^ 1;
  await Bun.write(file, bytes);
}

/** Whether an answer ended as a whole: with its last chunk, or with as many bytes as it had announced. */
async function endsCleanly(server: CliServer, url: string): Promise<boolean> {
  const { head, body } = await rawRequest(server.url, `GET ${url} HTTP/1.1\r\nHost: x`);
  const length = /^content-length: (\d+)/im.exec(head)?.[1];
  return length === undefined ? body.subarray(-5).toString() === "0\r\n\r\n" : body.length === Number(length);
}

describeWith(["nix", "registry"], "serve with something broken behind it", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    small = await nix.build(shellDerivation("small", "echo content > $out"));
    const file = join(nix.folder, "large");
    await writeRandomFile(file, 17 * MIB, 8);
    large = (await nix.run("nix-store", ["--add", file])).trim();
    await cli.run(["keygen", "broken-1", cli.path("s"), cli.path("p")]);
    publicKey = await Bun.file(cli.path("p")).text();
    await publish(cli.path("cache"));
    await publish(`${registry.host}/x`);
  });

  test("whole answers end cleanly, so that the tests below mean something", async () => {
    for (const cache of [cli.path("cache"), `${registry.host}/x`]) {
      const server = await indexed(await serve(cache));
      for (const path of [small, large]) {
        expect(await endsCleanly(server, await narUrl(server, path))).toBe(true);
      }
      await server.stop();
    }
  });

  const PLACES: [name: string, at: (size: number) => number][] = [
    ["first", () => 0],
    ["middle", (size) => size >> 1],
    ["last", (size) => size - 1],
  ];

  test.each(PLACES)("a large NAR whose %s byte is flipped is a broken transfer", async (name, at) => {
    const cache = cli.path(`large-${name}`);
    await cp(cli.path("cache"), cache, { recursive: true });
    const [blob] = await narBlobs(cache);
    await flip(layoutBlob(cache, blob as string), at);
    const server = await indexed(await serve(cache));
    expect(await endsCleanly(server, await narUrl(server, large))).toBe(false);
    const client = await openClient(nix, publicKey);
    await expect(client.realise(server.url, [large])).rejects.toThrow();
    expect(await client.paths()).toEqual([]);
    await server.stop();
    expect(server.log()).toContain(blob as string);
  });

  test("every part of a large NAR is checked, also in a registry, and a cut one as well", async () => {
    const parts = [...(await registryBlobs(registry.folder))].filter(([, size]) => size > MIB);
    expect(parts.length).toBeGreaterThan(3);
    const server = await indexed(await serve(`${registry.host}/x`));
    const url = await narUrl(server, large);
    for (const [digest] of parts) {
      const file = registryBlob(registry.folder, digest);
      const good = await Bun.file(file).bytes();
      // At the end of the last one stands the listing.
      await flip(file, (size) => size >> 1);
      expect([digest, await endsCleanly(server, url)]).toEqual([digest, false]);
      await Bun.write(file, good);
    }
    const [digest = ""] = parts[1] ?? [];
    const file = registryBlob(registry.folder, digest);
    const good = await Bun.file(file).bytes();
    await Bun.write(file, good.subarray(0, good.length >> 1));
    expect(await endsCleanly(server, url)).toBe(false);
    await Bun.write(file, good);
    expect(await endsCleanly(server, url)).toBe(true);
    await server.stop();
  });

  test("a small NAR with a flipped byte is a 404, and so is one whose blob is gone", async () => {
    const cache = cli.path("small-damaged");
    await cp(cli.path("cache"), cache, { recursive: true });
    const server = await indexed(await serve(cache));
    const url = await narUrl(server, small);
    expect((await server.get(url)).status).toBe(200);
    const bytes = await (await server.get(url)).bytes();
    for (const name of await readdir(join(cache, "blobs", "sha256"))) {
      const file = layoutBlob(cache, name);
      // Its listing stands behind it.
      const start = Buffer.from(await Bun.file(file).bytes()).subarray(0, bytes.length);
      if (start.equals(bytes)) await flip(file, () => bytes.length >> 1);
    }
    expect((await server.get(url)).status).toBe(404);
    for (const name of await narBlobs(cache)) await Bun.file(layoutBlob(cache, name)).delete();
    expect((await server.get(await narUrl(server, large))).status).toBe(404);
    await server.stop();
  });

  test.each(["Content-Length: 200000", "Transfer-Encoding: chunked"])(
    "an upstream that breaks off (%s) is a broken transfer for the client too",
    async (header) => {
      const upstream = Bun.listen({
        port: 0,
        hostname: "127.0.0.1",
        socket: {
          data(socket, request) {
            // What serve asks in the background shall not show that it is broken.
            if (!request.includes("/nar/"))
              return void socket.end("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
            // 100 bytes of 200,000, or of a chunk that is to have as many.
            const chunk = header.startsWith("T") ? "30d40\r\n" : "";
            socket.end(`HTTP/1.1 200 OK\r\n${header}\r\n\r\n${chunk}${"x".repeat(100)}`);
          },
        },
      });
      const server = await serve(cli.path("empty"), `http://127.0.0.1:${upstream.port}`);
      expect(await endsCleanly(server, "/nar/abc.nar.xz")).toBe(false);
      await server.stop();
      upstream.stop(true);
    },
  );

  describe("a registry out of reach", () => {
    test("before any index was loaded: nix-cache-info 503, narinfo 404, NAR 503", async () => {
      const server = await serve("127.0.0.1:1/x");
      expect((await server.get("/_refresh", { method: "POST" })).status).toBe(502);
      expect((await server.get("/nix-cache-info")).status).toBe(503);
      expect((await server.get(`/${hashPart(small)}.narinfo`)).status).toBe(404);
      expect((await server.get("/nar/absent.nar.zst")).status).toBe(503);
      expect(await server.stop()).toBe(0);
      expect(server.log()).toContain("127.0.0.1:1");
    });

    test("after a restart the local index answers at once; NARs are 404 until the registry is back", async () => {
      const cache = `${registry.host}/x`;
      const first = await indexed(await serve(cache, "", "restarted"));
      const urls = [await narUrl(first, small), await narUrl(first, large)];
      await first.stop();
      await registry.stop();
      try {
        const server = await serve(cache, "", "restarted");
        const started = performance.now();
        expect((await server.get("/nix-cache-info")).status).toBe(200);
        expect((await server.get(`/${hashPart(small)}.narinfo`)).status).toBe(200);
        expect((await server.get(`/${"0".repeat(32)}.narinfo`)).status).toBe(404);
        for (const url of urls) expect((await server.get(url)).status).toBe(404);
        expect((await server.get("/_refresh", { method: "POST" })).status).toBe(502);
        expect(await (await server.get("/_status")).json()).toMatchObject({
          index_loaded: true,
          index_entries: 2,
        });
        expect((await server.get(`/${hashPart(small)}.narinfo`)).status).toBe(200);
        expect(performance.now() - started).toBeLessThan(SOON_MS);
        await registry.start();
        for (const url of urls) expect((await server.get(url)).status).toBe(200);
        await server.stop();
      } finally {
        await registry.start();
      }
    });
  });
});

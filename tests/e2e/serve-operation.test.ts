/** How `nixcache serve` is run: stopped, watched, and kept from strangers. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { type Cli, type CliServer, openCli, type Variables } from "../support/cli.ts";
import { listenForDatagrams } from "../support/datagrams.ts";
import { hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { shellDerivation, type TestNix } from "../support/nix.ts";
import { parsePrometheus } from "../support/prometheus.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { rawRequest } from "../support/raw-http.ts";
import { storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

const MIB = 1024 ** 2;

let cli: Cli;
let small: string;
let large: string;
let cache: string;

function serve(args: readonly string[] = [], env: Variables = {}): Promise<CliServer> {
  return cli.serve(["--cache", cache, "--upstream", "", ...args], { env });
}

async function indexed(server: CliServer): Promise<CliServer> {
  expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
  return server;
}

interface SlowClient {
  readonly socket: Socket;
  /** Bytes of the NAR file. */
  readonly size: number;
  /** Reads on until the server ends the connection. @returns the whole answer */
  rest(): Promise<Buffer>;
}

/** Has asked for the large NAR, has read the head of the answer, and reads no more for now. */
async function slowClient(server: CliServer): Promise<SlowClient> {
  const narinfo = await (await server.get(`/${hashPart(large)}.narinfo`)).text();
  const { hostname, port } = new URL(server.url);
  const socket = connect(Number(port), hostname);
  const received: Buffer[] = [];
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  socket.on("error", () => {});
  socket.write(`GET /${/^URL: (.*)$/m.exec(narinfo)?.[1]} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await new Promise<void>((resolve) => {
    socket.on("data", (bytes: Buffer) => {
      received.push(bytes);
      if (received.length === 1) {
        socket.pause();
        resolve();
      }
    });
  });
  return {
    socket,
    size: Number(/^FileSize: (\d+)$/m.exec(narinfo)?.[1]),
    async rest() {
      socket.resume();
      await closed;
      return Buffer.concat(received);
    },
  };
}

/** Resolves once nobody listens at the server's address any more. */
async function refusesConnections(server: CliServer): Promise<void> {
  const { hostname, port } = new URL(server.url);
  for (;;) {
    const refused = await new Promise<boolean>((resolve) => {
      const socket = connect(Number(port), hostname);
      socket.once("connect", () => {
        socket.destroy();
        resolve(false);
      });
      socket.once("error", () => resolve(true));
    });
    if (refused) return;
  }
}

describeWith(["nix"], "the operation of serve", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    const nix: TestNix = cleanup.add(await openNix()).value;
    cache = cli.path("cache");
    small = await nix.build(shellDerivation("operated", "echo content > $out"));
    const file = join(nix.folder, "large");
    await writeRandomFile(file, 40 * MIB, 5);
    large = (await nix.run("nix-store", ["--add", file])).trim();
    const published = await cli.run(["publish", small, large, "--cache", cache, "--upstream", ""], {
      env: storeVariables(nix),
    });
    expect(published).toMatchObject({ code: 0 });
  });

  describe("stopping", () => {
    test.each(["SIGTERM", "SIGINT"] as const)(
      "%s: a transfer is finished, idle connections and new ones are not kept, the exit code is 0",
      async (signal) => {
        const server = await indexed(await serve());
        const client = await slowClient(server);
        const { hostname, port } = new URL(server.url);
        const idle = connect(Number(port), hostname);
        const idleClosed = new Promise<void>((resolve) => idle.once("close", () => resolve()));
        idle.write("GET /nix-cache-info HTTP/1.1\r\nHost: x\r\n\r\n");
        await new Promise((resolve) => idle.once("data", resolve));
        process.kill(server.pid, signal);
        await refusesConnections(server);
        await idleClosed;
        const answer = await client.rest();
        expect(answer.length).toBeGreaterThan(client.size);
        expect(answer.subarray(-5).toString()).toBe("0\r\n\r\n");
        expect(await server.exited).toBe(0);
        expect(server.log()).toContain("waiting for 1 request for up to 30.0 s");
      },
    );

    test("once the grace is over what is left is cut, which the exit code and the log say", async () => {
      // Longer than other commands have from a signal to their end.
      const server = await indexed(await serve(["--grace", "2500ms"]));
      const client = await slowClient(server);
      process.kill(server.pid, "SIGTERM");
      expect(await server.exited).toBe(130);
      expect(server.log()).toContain("1 request cut after 2.5 s");
      const answer = await client.rest();
      expect(answer.subarray(-5).toString()).not.toBe("0\r\n\r\n");
    });

    test("a second signal ends it at once", async () => {
      const server = await indexed(await serve([], { NIXCACHE_GRACE: "10m" }));
      const client = await slowClient(server);
      process.kill(server.pid, "SIGTERM");
      await refusesConnections(server);
      process.kill(server.pid, "SIGTERM");
      expect(await server.exited).toBe(130);
      client.socket.destroy();
    });

    test("with nothing under way it ends at once, and says nothing", async () => {
      const server = await serve([], { NIXCACHE_GRACE: "10m" });
      expect(await server.stop()).toBe(0);
      expect(server.log()).toBe("");
    });

    test("a client that never sends the rest of what it has begun does not hold it", async () => {
      const server = await indexed(await serve([], { NIXCACHE_GRACE: "10m" }));
      const { hostname, port } = new URL(server.url);
      const begun = connect(Number(port), hostname);
      begun.write(
        "POST /nix-cache-info HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
      );
      await new Promise((resolve) => begun.once("data", resolve));
      expect(await server.stop()).toBe(0);
      begun.destroy();
    });

    test("a registry that does not answer does not hold it", async () => {
      const asked = Promise.withResolvers<void>();
      const socket = { data: () => asked.resolve() };
      const silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket });
      const args = ["--cache", `127.0.0.1:${silent.port}/x`, "--upstream", "", "--grace", "10m"];
      const server = await cli.serve(args);
      await asked.promise;
      expect(await server.stop()).toBe(0);
      silent.stop(true);
    });

    test.each([["0"], ["soon"], ["30"]])("--grace %s is no time", async (grace) => {
      const result = await cli.run(["serve", "--cache", cache, "--grace", grace]);
      expect(result).toMatchObject({ code: 2, stdout: "" });
      expect(result.stderr).toContain("--grace: got");
    });
  });

  describe("systemd", () => {
    test.each([
      ["by libc", {}],
      ["by systemd-notify where no code may be made at run time", { BUN_JSC_useJIT: "0" }],
    ])("is told when it is ready, and when it stops: %s", async (_, env) => {
      const name = `@nixcache-test-${process.pid}-${Object.keys(env).length}`;
      using systemd = listenForDatagrams(name);
      // A double of systemd's program: what it was told, and where to.
      const told = cli.path("told");
      await Bun.write(
        cli.path("bin", "systemd-notify"),
        `#!/bin/sh\necho "$NOTIFY_SOCKET" "$@" >> '${told}'\n`,
      );
      await cli.run(["+x", cli.path("bin", "systemd-notify")], { program: ["chmod"] });
      const PATH = `${cli.path("bin")}:${process.env.PATH}`;
      const server = await serve([], { ...env, PATH, NOTIFY_SOCKET: name });
      const ready = `READY=1\nSTATUS=serving ${cache} at ${server.url}`;
      if (Object.keys(env).length === 0) {
        expect(await systemd.next()).toBe(ready);
        expect(await server.stop()).toBe(0);
        expect(await systemd.next()).toBe("STOPPING=1");
        return;
      }
      const hasSaid = async (text: string) => {
        while (!(await Bun.file(told).exists()) || !(await Bun.file(told).text()).includes(text))
          await Bun.sleep(5);
      };
      await hasSaid("READY=1");
      expect(await server.stop()).toBe(0);
      // Nobody waits for it.
      await hasSaid("STOPPING=1");
      expect(await Bun.file(told).text()).toBe(`${name} ${ready.replace("\n", " ")}\n${name} STOPPING=1\n`);
    });
  });

  describe("strangers", () => {
    let server: CliServer;
    beforeAll(async () => {
      server = await serve(["--allow-host", "nas.example"]);
    });
    afterAll(() => server?.stop());

    const statusOf = async (method: string, path: string, headers: string) =>
      (await rawRequest(server.url, `${method} ${path} HTTP/1.1\r\n${headers}`)).status;

    test("by an unknown name nothing is listed and nothing refreshed, but what is named by its hash is there", async () => {
      for (const host of ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80"]) {
        for (const path of ["/_status", "/metrics", "/"]) {
          expect([path, await statusOf("GET", path, `Host: ${host}`)]).toEqual([path, 403]);
        }
        expect(await statusOf("POST", "/_refresh", `Host: ${host}`)).toBe(403);
        expect(await statusOf("GET", "/nix-cache-info", `Host: ${host}`)).toBe(200);
        expect(await statusOf("GET", `/${hashPart(small)}.narinfo`, `Host: ${host}`)).toBe(200);
      }
      for (const host of ["localhost:1", "127.0.0.1", "[::1]:80", "nas.example"]) {
        expect(await statusOf("GET", "/_status", `Host: ${host}`)).toBe(200);
        expect(await statusOf("POST", "/_refresh", `Host: ${host}\r\nContent-Length: 0`)).toBe(200);
      }
    });

    test("a page of another site refreshes nothing", async () => {
      for (const from of [
        "Origin: https://evil.example",
        "Origin: null",
        "Referer: https://evil.example/x",
        "Sec-Fetch-Site: cross-site",
      ]) {
        const headers = `Host: localhost\r\n${from}\r\nContent-Length: 0`;
        expect([from, await statusOf("POST", "/_refresh", headers)]).toEqual([from, 403]);
      }
      const own =
        "Host: localhost:1\r\nOrigin: http://localhost:1\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 0";
      expect(await statusOf("POST", "/_refresh", own)).toBe(200);
    });
  });

  describe("what is told", () => {
    test("metrics of real requests are well-formed and right", async () => {
      const server = await indexed(await serve());
      const narinfo = await (await server.get(`/${hashPart(small)}.narinfo`)).text();
      await server.get(`/${"0".repeat(32)}.narinfo`);
      for (const path of [small, large]) {
        const text = await (await server.get(`/${hashPart(path)}.narinfo`)).text();
        await (await server.get(`/${/^URL: (.*)$/m.exec(text)?.[1]}`)).bytes();
      }
      const answer = await server.get("/metrics");
      expect(answer.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
      const series = parsePrometheus(await answer.text());
      expect(Object.fromEntries(series)).toMatchObject({
        'nixcache_http_requests_total{kind="narinfo",status="2xx"}': 3,
        'nixcache_http_requests_total{kind="narinfo",status="4xx"}': 1,
        'nixcache_hits_total{kind="narinfo",source="cache"}': 3,
        'nixcache_hits_total{kind="nar",source="cache"}': 2,
        [`nixcache_index_entries{cache="${cache}"}`]: 2,
      });
      const sizes = [small, large].map(async (path) => {
        const text = await (await server.get(`/${hashPart(path)}.narinfo`)).text();
        return Number(/^FileSize: (\d+)$/m.exec(text)?.[1]);
      });
      const sent = (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
      expect(series.get('nixcache_http_response_bytes_total{kind="nar"}')).toBe(sent);
      expect(series.get('nixcache_http_response_bytes_total{kind="narinfo"}')).toBeGreaterThan(
        narinfo.length,
      );
      await server.stop();
    });

    test("--log-level access writes a line for each request, without its query; a cut transfer says so", async () => {
      const server = await indexed(await serve(["--log-level", "access"]));
      await (await server.get(`/${hashPart(small)}.narinfo?token=hunter2`)).text();
      const client = await slowClient(server);
      client.socket.destroy();
      while (!server.log().includes(" cut\n")) await Bun.sleep(5);
      expect(await server.stop()).toBe(0);
      expect(server.log()).not.toContain("hunter2");
      const lines = server.log().trimEnd().split("\n");
      expect(lines).toHaveLength(4);
      expect(lines[0]).toMatch(/^127\.0\.0\.1 POST \/_refresh 200 \d+ B [\d.]+ ms none$/);
      expect(lines[1]).toMatch(
        new RegExp(`^127\\.0\\.0\\.1 GET /${hashPart(small)}\\.narinfo 200 \\d+ B [\\d.]+ ms cache$`),
      );
      expect(lines[3]).toMatch(/^127\.0\.0\.1 GET \/nar\/\S+ 200 \d+ B [\d.]+ ms cache cut$/);
    });

    test("levels leave out what is less important; others are refused", async () => {
      const quiet = await cli.serve(["--cache", "127.0.0.1:1/x", "--upstream", "", "--log-level", "error"]);
      await quiet.get("/_refresh", { method: "POST" });
      expect(await quiet.stop()).toBe(0);
      expect(quiet.log()).toBe("");
      const loud = await cli.serve(["--cache", "127.0.0.1:1/x", "--upstream", ""], {
        env: { NIXCACHE_LOG_LEVEL: "warn" },
      });
      await loud.get("/_refresh", { method: "POST" });
      await loud.stop();
      expect(loud.log()).toContain("the index could not be refreshed");
      const wrong = await cli.run(["serve", "--log-level", "debug"]);
      expect(wrong.code).toBe(2);
      expect(wrong.stderr).toContain('--log-level: got "debug", expected one of error, warn, info, access');
    });

    test("of several caches the one that cannot be refreshed is named, the others are refreshed", async () => {
      const args = ["--cache", cache, "--cache", "127.0.0.1:1/x", "--upstream", ""];
      const server = await cli.serve(args, { env: { NIXCACHE_INDEX_DIR: cli.path("several") } });
      const answer = await server.get("/_refresh", { method: "POST" });
      expect(answer.status).toBe(502);
      const text = await answer.text();
      expect(text).toStartWith("the index could not be refreshed of 127.0.0.1:1/x: ");
      expect(text).not.toContain(cache);
      expect(await (await server.get("/_status")).json()).toMatchObject({ index_entries: 2 });
      await server.stop();
    });
  });
});

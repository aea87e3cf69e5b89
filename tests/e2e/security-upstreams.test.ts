/**
 * Hostile upstreams and registries against the binary. A proxy stands for the public network: for the names that it is
 * asked for it answers itself, and what is on this machine the binary asks without it.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { type Cli, openCli } from "../support/cli.ts";
import { Cleanup } from "../support/lease.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

const SECRET = "the secret of whoever listens there";
const CACHE_INFO = "StoreDir: /nix/store\nPriority: 40\n";

/** Requests that came to a server: `GET target`. */
interface Listening {
  readonly port: number;
  readonly asked: string[];
}

async function listen(answer: (target: string) => { status: number; location?: string; body?: string }) {
  const asked: string[] = [];
  const server: Server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    const { status, location, body = "" } = answer(request.url ?? "");
    response.writeHead(status, location === undefined ? {} : { location }).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  cleanup.add({
    close: async () => {
      server.closeAllConnections();
      server.close();
    },
  });
  return { asked, port: (server.address() as AddressInfo).port } satisfies Listening;
}

let cli: Cli;
let inside: Listening;
let outside: Listening;
/** Where everything outside leads. */
let location = "";

beforeAll(async () => {
  cli = cleanup.add(await openCli());
  inside = await listen(() => ({ status: 200, body: SECRET }));
  outside = await listen((target) =>
    target.endsWith("/nix-cache-info") ? { status: 200, body: CACHE_INFO } : { status: 302, location },
  );
});

beforeEach(() => {
  inside.asked.length = 0;
});

const PROXY = () => ({ http_proxy: `http://127.0.0.1:${outside.port}`, NIXCACHE_RETRY_ATTEMPTS: "1" });

const SPELLINGS = (port: number) => [
  ...[`http://127.0.0.1:${port}/x`, `http://localhost:${port}/x`, `http://2130706433:${port}/x`],
  ...[`http://[::ffff:7f00:1]:${port}/x`, `http://0:${port}/x`, `http://a.localhost:${port}/x`],
];

describe("S8: serve follows no upstream inside", () => {
  test("from a public server", async () => {
    const server = await cli.serve(["--cache", "./empty", "--upstream", "http://cache.example"], {
      env: PROXY(),
    });
    expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
    for (const [at, spelling] of SPELLINGS(inside.port).entries()) {
      location = spelling;
      const answers = [
        await server.get(`/nar/x${at}.nar`),
        await server.get(`/${String(at).repeat(32)}.narinfo`),
      ];
      for (const answer of answers) {
        expect([spelling, answer.status]).toEqual([spelling, 404]);
        expect(await answer.text()).not.toContain(SECRET);
      }
    }
    await server.stop();
    expect(inside.asked).toEqual([]);
    expect(server.log()).toContain("cache.example leads there, and 127.0.0.1 is an address of this machine");
  });

  test("nor to itself, from a server on this machine", async () => {
    const upstream = `http://127.0.0.1:${outside.port}`;
    const server = await cli.serve(["--cache", "./empty", "--upstream", upstream]);
    expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
    location = `${server.url}/_status`;
    const answer = await server.get("/nar/x.nar");
    expect([answer.status, await answer.text()]).toEqual([404, expect.not.stringContaining("version")]);
    await server.stop();
    expect(server.log()).toContain("is where this very program listens");
  });
});

test("S27: nobody who reads a registry is led inside", async () => {
  for (const spelling of SPELLINGS(inside.port)) {
    location = spelling;
    const { code, stderr } = await cli.run(["list", "--cache", "http://registry.example/x"], {
      env: PROXY(),
    });
    expect([spelling, code]).toEqual([spelling, 13]);
    expect(stderr).toContain("registry.example leads there");
  }
  expect(inside.asked).toEqual([]);
});

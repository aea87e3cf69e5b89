/** The binary where the environment names a proxy: what is on this machine never goes there, whatever it says. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Finding } from "../../src/setup/check.ts";
import { type Cli, openCli } from "../support/cli.ts";
import { shellDerivation } from "../support/derivation.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import type { TestNix } from "../support/nix.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

const PASSWORD = "hunter2";
const QUICK = { NIXCACHE_RETRY_ATTEMPTS: "1" };

let cli: Cli;
let proxy: Server;
let proxyUrl: string;
/** What it was asked for. */
const asked: string[] = [];

beforeAll(async () => {
  cli = cleanup.add(await openCli());
  proxy = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    response.writeHead(502).end("a proxy that reaches nothing");
  });
  proxy.on("connect", (request, socket) => {
    asked.push(`CONNECT ${request.url}`);
    socket.end("HTTP/1.1 407 Who are you\r\n\r\n");
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  cleanup.add({
    close: async () => {
      proxy.closeAllConnections();
      proxy.close();
    },
  });
  proxyUrl = `http://me:${PASSWORD}@127.0.0.1:${(proxy.address() as AddressInfo).port}`;
});

const EVERYTHING = () => ({
  ...{ http_proxy: proxyUrl, HTTP_PROXY: proxyUrl, https_proxy: proxyUrl, HTTPS_PROXY: proxyUrl },
  ...{ all_proxy: proxyUrl, ALL_PROXY: proxyUrl },
});

describeWith(["nix", "registry"], "what is on this machine", () => {
  let nix: TestNix;
  let registry: TestRegistry;
  let path: string;
  beforeAll(async () => {
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    path = await nix.build(shellDerivation("proxied", "echo proxied > $out"));
  });

  test.each<[string, () => Record<string, string>]>([
    ["http_proxy", () => ({ http_proxy: proxyUrl })],
    ["HTTP_PROXY", () => ({ HTTP_PROXY: proxyUrl })],
    ["all_proxy", () => ({ all_proxy: proxyUrl })],
    ["ALL_PROXY", () => ({ ALL_PROXY: proxyUrl })],
    ["all of them", EVERYTHING],
    ["exceptions for others", () => ({ ...EVERYTHING(), no_proxy: "a.example", NO_PROXY: "b.example" })],
  ])("is published to, read and looked at past %s", async (name, variables) => {
    const cache = `${registry.host}/${name.toLowerCase().replaceAll(/\W/g, "-")}`;
    const upstream = await cli.serve(["--cache", `./empty-${name.length}`, "--upstream", ""]);
    const env = { ...storeVariables(nix), ...QUICK, ...variables() };
    const publish = ["publish", path, "--cache", cache, "--upstream", upstream.url];
    const published = await cli.run(publish, { env });
    expect(published).toMatchObject({ code: 0, stderr: expect.not.stringContaining("cannot be asked") });
    const server = await cli.serve(["--cache", cache, "--upstream", upstream.url], { env });
    expect((await server.get(`/${path.slice(11, 43)}.narinfo`)).status).toBe(200);
    const doctor = ["doctor", "--cache", cache, "--port", new URL(server.url).port, "--json"];
    const { findings } = JSON.parse((await cli.run(doctor, { env })).stdout) as { findings: Finding[] };
    const states = Object.fromEntries(findings.map(({ check, state }) => [check, state]));
    expect(states).toMatchObject({ serve: "ok", cache: "ok", clock: "ok" });
    const nixAsksIt = !/^HTTP_PROXY$/.test(name);
    expect(states.proxy as never).toBe((nixAsksIt ? "wrong" : undefined) as never);
    expect(JSON.stringify(findings)).not.toContain(PASSWORD);
    await server.stop();
    await upstream.stop();
    // Nix is asked by doctor as the user has it, and goes to the proxy; nobody else does.
    expect(asked.filter((request) => !request.includes(new URL(server.url).host))).toEqual([]);
    asked.length = 0;
  });
});

describe("what is elsewhere", () => {
  test.each([
    ["http://registry.invalid/x", "http_proxy", "/v2/x/tags/list"],
    ["https://registry.invalid/x", "https_proxy", "CONNECT registry.invalid:443"],
  ])("%s is asked through %s", async (cache, variable, request) => {
    asked.length = 0;
    const { code, stderr } = await cli.run(["list", "--cache", cache], {
      env: { ...QUICK, [variable]: proxyUrl },
    });
    expect(code).toBe(8);
    expect(asked.join("\n")).toContain(request);
    expect(stderr).not.toContain(PASSWORD);
  });

  test.each([
    ["that is down", "http://me:hunter2@127.0.0.1:9", "nobody listens at the proxy (connection refused)"],
    ["of another kind", "socks5://me:hunter2@127.0.0.1:9", "of a kind that is not known"],
    ["that refuses", undefined, "Proxy refused to open a tunnel: 407 Who are you"],
  ])("a proxy %s is told, by its variable and without its password", async (_, url, message) => {
    const { code, stderr } = await cli.run(["list", "--cache", "registry.invalid/x", "--verbose"], {
      env: { ...QUICK, HTTPS_PROXY: url ?? proxyUrl },
    });
    expect(code).toBe(8);
    expect(stderr).toContain(message);
    expect(stderr).toContain("(the proxy is the one that HTTPS_PROXY names)");
    expect(stderr).not.toContain(PASSWORD);
  });
});

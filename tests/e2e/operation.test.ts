/** What an operator meets: a port in use, clients that do not read, signals, secrets in URLs. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { connect } from "node:net";
import { join } from "node:path";
import { type Cli, openCli } from "../support/cli.ts";
import { hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { shellDerivation, type TestNix } from "../support/nix.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

const MIB = 1024 ** 2;

/** Resolves once the process has a handler for a signal: before that, the signal just ends it. */
async function catches(pid: number, signal: number): Promise<void> {
  for (;;) {
    const mask = /^SigCgt:\s*([0-9a-f]+)$/m.exec(await Bun.file(`/proc/${pid}/status`).text())?.[1];
    if ((BigInt(`0x${mask}`) >> BigInt(signal - 1)) & 1n) return;
  }
}

describeWith(["nix", "registry"], "operation", () => {
  let cli: Cli;
  let nix: TestNix;
  let registry: TestRegistry;
  let small: string;
  let middle: string;
  let large: string;
  let cache: string;

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    cache = `${registry.host}/operation`;
    small = await nix.build(shellDerivation("operation", "echo content > $out"));
    const file = join(nix.folder, "middle");
    await writeRandomFile(file, 3.7 * MIB, 3);
    middle = (await nix.run("nix-store", ["--add", file])).trim();
    const larger = join(nix.folder, "large");
    await writeRandomFile(larger, 40 * MIB, 4);
    large = (await nix.run("nix-store", ["--add", larger])).trim();
    const result = await cli.run(["publish", small, middle, large, "--cache", cache, "--upstream", ""], {
      env: storeVariables(nix),
    });
    expect(result).toMatchObject({ code: 0 });
  });

  test("a second server on the same port is refused", async () => {
    const server = await cli.serve(["--cache", cache, "--upstream", ""]);
    const { port } = new URL(server.url);
    const second = await cli.run(["serve", "--cache", cache, "--upstream", "", "--port", port]);
    expect(second.code).toBe(6);
    expect(second.stderr).toContain("the port is taken");
    await server.stop();
  });

  test("rule 6: 100 clients that ask for a NAR and do not read it leave the memory within its bound", async () => {
    const server = await cli.serve(["--cache", cache, "--upstream", ""]);
    await server.get("/_refresh", { method: "POST" });
    const narinfo = await (await server.get(`/${hashPart(middle)}.narinfo`)).text();
    const url = `/${/^URL: (.*)$/m.exec(narinfo)?.[1]}`;
    const { hostname, port } = new URL(server.url);
    const sockets = await Promise.all(
      Array.from({ length: 100 }, async () => {
        const socket = connect(Number(port), hostname);
        const answered = Promise.withResolvers<void>();
        // Read as far as the head of the answer, then no more.
        socket.once("data", () => {
          socket.pause();
          answered.resolve();
        });
        socket.once("error", answered.reject);
        socket.write(`GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`);
        await answered.promise;
        return socket;
      }),
    );
    // Somebody who does read is answered meanwhile, whole.
    const bytes = await (await server.get(url)).bytes();
    expect(bytes.length).toBe(Number(/^FileSize: (\d+)$/m.exec(narinfo)?.[1]));
    for (const socket of sockets) socket.destroy();
    expect(await server.stop()).toBe(0);
    console.log(`100 clients that do not read: ${Math.round(server.peakRss() / MIB)} MiB`);
    expect(server.peakRss()).toBeLessThan(200 * MIB);
  });

  test("defect 26: a client that pauses for longer than Bun's idle time-out is not cut", async () => {
    const server = await cli.serve(["--cache", cache, "--upstream", ""]);
    await server.get("/_refresh", { method: "POST" });
    const narinfo = await (await server.get(`/${hashPart(large)}.narinfo`)).text();
    const response = await server.get(`/${/^URL: (.*)$/m.exec(narinfo)?.[1]}`);
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    let received = (await reader.read()).value?.length ?? 0;
    // What is tested is time itself: 10 s is Bun's default.
    await Bun.sleep(12_000);
    for (let next = await reader.read(); !next.done; next = await reader.read())
      received += next.value.length;
    expect(received).toBe(Number(/^FileSize: (\d+)$/m.exec(narinfo)?.[1]));
    await server.stop();
  });

  test.each([
    ["publish", ["publish", "--cache", "./new"]],
    ["keygen", ["keygen", "--public"]],
  ])("%s that waits for standard input ends by SIGTERM", async (_, args) => {
    const child = Bun.spawn([join(import.meta.dir, "../../dist/nixcache"), ...args], {
      cwd: cli.path("cwd"),
      env: cli.env,
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
    await catches(child.pid, 15);
    child.kill("SIGTERM");
    expect(await child.exited).toBe(130);
    expect(await child.stderr.text()).toContain("stopped by SIGTERM");
  });

  test("whoever stops reading our output gets no stack trace", async () => {
    const child = Bun.spawn(
      ["sh", "-c", `'${join(import.meta.dir, "../../dist/nixcache")}' publish --help | true`],
      {
        env: cli.env,
        stdout: "pipe",
        stderr: "pipe",
      },
    );
    expect(await child.exited).toBe(0);
    expect(await child.stderr.text()).toBe("");
    const full = await cli.run(
      ["-c", `'${join(import.meta.dir, "../../dist/nixcache")}' --help > /dev/full`],
      {
        program: ["sh"],
      },
    );
    expect(full.code).toBe(7);
    expect(full.stderr).toMatch(/^\[error\] cannot write to standard output: .*ENOSPC[^\n]*\n$/);
  });

  test("rule 7: user and password of an upstream go to it and appear nowhere", async () => {
    const seen: (string | null)[] = [];
    const upstream = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: (request) => {
        seen.push(request.headers.get("authorization"));
        return new Response("broken", { status: 500 });
      },
    });
    try {
      const url = `http://user:hunter2@127.0.0.1:${upstream.port}`;
      const server = await cli.serve(["--cache", cache, "--upstream", url]);
      expect((await server.get(`/${"0".repeat(32)}.narinfo`)).status).toBe(404);
      expect(await (await server.get("/_status")).text()).not.toContain("hunter2");
      await server.stop();
      expect(server.log()).toContain(`127.0.0.1:${upstream.port}`);
      expect(server.log()).not.toContain("hunter2");
      expect(new Set(seen)).toEqual(new Set([`Basic ${Buffer.from("user:hunter2").toString("base64")}`]));
    } finally {
      await upstream.stop(true);
    }
  });
});

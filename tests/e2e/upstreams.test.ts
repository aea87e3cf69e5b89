/** Upstreams behind the real server: circles of caches, NARs at other addresses, logs, and the real Nix. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type Cli, type CliServer, openCli } from "../support/cli.ts";
import { hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { shellDerivation, type TestNix } from "../support/nix.ts";
import { openClient, storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

const ABSENT = "0".repeat(32);

/** Stands before a cache whose address is not known yet, counts what is asked, and may answer by itself. */
function openGate(answer: (path: string) => Promise<Response | undefined> = async () => undefined) {
  const gate = { target: "", url: "", paths: [] as string[], close: async () => server.stop(true) };
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 0,
    async fetch(request) {
      const { pathname, search } = new URL(request.url);
      gate.paths.push(pathname);
      const { method, headers } = request;
      const own = await answer(pathname);
      if (own !== undefined) return own;
      if (gate.target === "") return new Response("not there yet\n", { status: 503 });
      return fetch(gate.target + pathname + search, { method, headers, decompress: false });
    },
  });
  gate.url = `http://127.0.0.1:${server.port}`;
  return cleanup.add(gate);
}

describeWith(["nix"], "upstreams", () => {
  let cli: Cli;
  let nix: TestNix;
  let path: string;
  let publicKey: string;
  let indexes = 0;

  async function serve(cache: string, ...upstreams: string[]): Promise<CliServer> {
    const flags =
      upstreams.length === 0 ? ["--upstream", ""] : upstreams.flatMap((url) => ["--upstream", url]);
    const env = { NIXCACHE_INDEX_DIR: cli.path(`index-${++indexes}`) };
    const server = await cli.serve(["--cache", cli.path(cache), ...flags], { env });
    expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
    return server;
  }

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    path = await nix.build(shellDerivation("upstream", "echo content > $out"));
    await cli.run(["keygen", "up-1", cli.path("s"), cli.path("p")]);
    publicKey = await Bun.file(cli.path("p")).text();
    const args = ["--cache", cli.path("cache"), "--upstream", "", "--signing-key-file", cli.path("s")];
    expect(await cli.run(["publish", path, ...args], { env: storeVariables(nix) })).toMatchObject({
      code: 0,
    });
  });

  test("two caches that are each other's upstream answer, and ask each other once", async () => {
    const [toFull, toEmpty] = [openGate(), openGate()];
    const full = await serve("cache", toEmpty.url);
    const empty = await serve("empty", toFull.url);
    [toFull.target, toEmpty.target] = [full.url, empty.url];
    // Their first probes found nothing behind the gates.
    for (const server of [full, empty]) await untilUp(server);
    const client = await openClient(nix, publicKey);
    await client.copy(empty.url, [path]);
    expect(await client.paths()).toEqual([path]);
    for (const file of [`${"1".repeat(32)}.narinfo`, "nar/absent.nar", "log/absent.drv"]) {
      toFull.paths.length = toEmpty.paths.length = 0;
      expect([file, (await empty.get(`/${file}`)).status]).toEqual([file, 404]);
      const asked = (paths: string[]) => paths.filter((asked) => asked === `/${file}`).length;
      expect([file, asked(toFull.paths), asked(toEmpty.paths)]).toEqual([file, 1, 1]);
    }
    for (const server of [full, empty]) expect(await server.stop()).toBe(0);
  });

  test("a cache that is its own upstream asks itself once", async () => {
    const gate = openGate();
    const server = await serve("cache", gate.url);
    gate.target = server.url;
    await untilUp(server);
    gate.paths.length = 0;
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => server.get(`/${"2".repeat(32)}.narinfo`)),
    );
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 404));
    expect(gate.paths).toEqual([`/${"2".repeat(32)}.narinfo`]);
    await server.stop();
  });

  test("Nix gets a NAR that the upstream keeps elsewhere than under nar/", async () => {
    const full = await serve("cache");
    const gate = openGate(async (asked) => {
      if (asked.startsWith("/store/of/nars/")) return full.get(asked.replace("/store/of/nars/", "/nar/"));
      if (!asked.endsWith(".narinfo")) return full.get(asked);
      const narinfo = await (await full.get(asked)).text();
      return new Response(narinfo.replace("URL: nar/", "URL: store/of/nars/"));
    });
    const server = await serve("empty", gate.url);
    const narinfo = await (await server.get(`/${hashPart(path)}.narinfo`)).text();
    expect(narinfo).toMatch(/^URL: from\/[0-9a-f]{32}\/store\/of\/nars\/\S+\.nar\.zst$/m);
    const client = await openClient(nix, publicKey);
    await client.realise(server.url, [path]);
    expect(await client.paths()).toEqual([path]);
    await Promise.all([server.stop(), full.stop()]);
  });

  test("S9: Nix gets a NAR of the second upstream, also by what it remembers from before a restart", async () => {
    const full = await serve("cache");
    const none = await serve("none");
    const first = await serve("empty", none.url, full.url);
    const narinfo = await (await first.get(`/${hashPart(path)}.narinfo`)).text();
    const [, url = ""] = /^URL: (from\/[0-9a-f]{32}\/nar\/\S+\.nar\.zst)$/m.exec(narinfo) ?? [];
    const nar = await (await first.get(`/${url}`)).bytes();
    await first.stop();
    const flags = ["--cache", cli.path("empty"), "--upstream", none.url, "--upstream", full.url];
    const again = await cli.serve(flags, { env: { NIXCACHE_INDEX_DIR: cli.path(`index-${indexes}`) } });
    expect(await (await again.get(`/${url}`)).bytes()).toEqual(nar);
    const client = await openClient(nix, publicKey);
    await client.realise(again.url, [path]);
    expect(await client.paths()).toEqual([path]);
    await Promise.all([again, none, full].map((server) => server.stop()));
  });

  test("S13: publish uploads what an upstream only claims to have, and nothing that it has", async () => {
    const full = await serve("cache");
    const forged = (narinfo: string) =>
      narinfo.replace(/^NarHash: .*$/m, `NarHash: sha256:${"0".repeat(52)}`);
    const unsigned = (narinfo: string) => narinfo.replace(/^Sig: .*\n/gm, "");
    for (const [name, change, extra, uploaded] of [
      ["forged", forged, [], 1],
      ["forged-unsigned", (narinfo: string) => unsigned(forged(narinfo)), [], 1],
      ["unsigned", unsigned, ["--upstream-key", publicKey], 1],
      ["true", (narinfo: string) => narinfo, ["--upstream-key", publicKey], 0],
      ["true-unknown", (narinfo: string) => narinfo, [], 0],
    ] as const) {
      const gate = openGate(async (asked) => {
        const answer = await full.get(asked);
        return asked.endsWith(".narinfo") ? new Response(change(await answer.text())) : answer;
      });
      const args = ["--cache", cli.path(`claims-${name}`), "--upstream", gate.url, "--json", ...extra];
      const { stdout, stderr } = await cli.run(["publish", path, ...args], { env: storeVariables(nix) });
      expect([name, JSON.parse(stdout).paths.uploaded]).toEqual([name, uploaded]);
      expect([name, stderr.includes("does not count as there")]).toEqual([name, uploaded === 1]);
    }
    await full.stop();
  });

  test("Nix reads a build log of the upstream, which keeps it compressed", async () => {
    const full = await serve("cache");
    const log = "built it\n";
    const gate = openGate(async (asked) => {
      if (!asked.startsWith("/log/")) return full.get(asked);
      if (!asked.endsWith("-upstream.drv")) return new Response("", { status: 404 });
      return new Response(Bun.gzipSync(log), { headers: { "content-encoding": "gzip" } });
    });
    const server = await serve("empty", gate.url);
    expect(await nix.run("nix", ["log", "--store", server.url, path])).toBe(log);
    const asked = gate.paths.find((asked) => asked.startsWith("/log/")) ?? "";
    const raw = await fetch(server.url + asked, {
      headers: { "accept-encoding": "gzip" },
      decompress: false,
    });
    expect(raw.headers.get("content-encoding")).toBe("gzip");
    expect(Buffer.from(Bun.gunzipSync(await raw.arrayBuffer())).toString()).toBe(log);
    expect((await server.get("/log/absent.drv")).status).toBe(404);
    await gate.close();
    expect((await server.get("/log/other.drv")).status).toBe(404);
    await Promise.all([server.stop(), full.stop()]);
  });
});

async function untilUp(server: CliServer): Promise<void> {
  for (;;) {
    await server.get(`/${ABSENT}.narinfo`);
    const status = (await (await server.get("/_status")).json()) as { upstreams: { state: string }[] };
    if (status.upstreams.every(({ state }) => state === "up")) return;
    await Bun.sleep(20);
  }
}

/** `serve --nar-cache`: the second client has it from disk, also with the registry gone, a full disk, or a kill -9. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, rmSync, statSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { parseHash } from "../../src/nar/hash.ts";
import { parseNarInfo } from "../../src/nar/narinfo.ts";
import { CheckedClient, learnPaths } from "../support/checked-client.ts";
import { type Cli, type CliServer, openCli } from "../support/cli.ts";
import { noFaults } from "../support/fault-plan.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { downloadAll, hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, type TestNix } from "../support/nix.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { canMount, mountSmallDisk } from "../support/small-disk.ts";
import { openClient, storeVariables } from "../support/substitute.ts";
import { startUpstreamDouble } from "../support/upstream-double.ts";

const MIB = 1024 ** 2;
const LARGE = 24 * MIB;
/** Answers that come now or not at all. */
const BRISK = { NIXCACHE_RETRY_ATTEMPTS: "1" };

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

describeWith(["nix", "registry"], "the disk cache", () => {
  let cli: Cli;
  let nix: TestNix;
  let registry: TestRegistry;
  let proxy: FaultProxy;
  let publicKey: string;
  /** The root of a closure of many small paths, which are in packs. */
  let root: string;
  let closure: string[];
  let large: string;
  let folders = 0;

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    proxy = cleanup.add(await startFaultProxy({ registry: registry.host, redirects: true }));
    const built = await buildClosure(nix, { paths: 40, seed: 21 });
    root = built.root;
    closure = [...built.paths];
    const file = join(nix.folder, "large");
    await writeRandomFile(file, LARGE, 21);
    large = (await nix.run("nix-store", ["--add", file])).trim();
    await cli.run(["keygen", "disk-1", cli.path("s"), cli.path("p")]);
    publicKey = await Bun.file(cli.path("p")).text();
    const args = ["publish", root, large, "--cache", cache(registry.host), "--upstream", ""];
    expect(
      await cli.run([...args, "--signing-key-file", cli.path("s")], { env: storeVariables(nix) }),
    ).toMatchObject({ code: 0 });
  });

  const cache = (host: string) => `${host}/disk-cache`;
  const newFolder = () => cli.path(`nar-cache-${++folders}`);
  const kept = (folder: string) => readdirSync(join(folder, "blobs-v1"));
  const drafts = (folder: string) =>
    readdirSync(join(folder, "filling"), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name !== "lock")
      .map((entry) => join(entry.parentPath, entry.name));
  /** From the registry and from its storage, whose links are used again. */
  const downloads = () => proxy.count("GET", /(\/blobs|^)\/sha256:/);

  async function serve(folder: string, ...args: string[]): Promise<CliServer> {
    const all = ["--cache", cache(proxy.host), "--upstream", "", "--nar-cache", folder, ...args];
    const server = await cli.serve(all, { env: BRISK });
    await server.get("/_refresh", { method: "POST" });
    return server;
  }

  /** The files are in their places: what is under way has ended. */
  async function filled(folder: string, blobs: number): Promise<void> {
    while (kept(folder).length < blobs || drafts(folder).length > 0) await Bun.sleep(5);
  }

  async function narOf(server: CliServer, path: string) {
    const info = parseNarInfo(await (await server.get(`/${hashPart(path)}.narinfo`)).text());
    const sha256 = Buffer.from(parseHash(info.fileHash ?? "", "FileHash").bytes).toString("hex");
    return { url: `/${info.url}`, sha256, size: info.fileSize ?? 0 };
  }

  /** Requests for NARs that a server has counted. */
  async function narsAsked(server: CliServer): Promise<number> {
    const text = await (await server.get("/metrics")).text();
    const counts = [...text.matchAll(/^nixcache_http_requests_total\{[^}]*="nar"[^}]*\} (\d+)$/gm)];
    return counts.reduce((sum, [, count]) => sum + Number(count), 0);
  }

  const hashed = async (answer: Response) =>
    new Bun.CryptoHasher("sha256").update(await answer.bytes()).digest("hex");

  test("a second client, and one after a restart, has everything from disk with the registry down", async () => {
    const folder = newFolder();
    let server = await serve(folder);
    const first = await openClient(nix, publicKey);
    await first.copy(server.url, [root, large]);
    const blobs = new Set(proxy.log.flatMap(({ path }) => /sha256:[0-9a-f]{64}$/.exec(path)?.[0] ?? [])).size;
    expect(blobs).toBeGreaterThan(1);
    while (drafts(folder).length > 0) await Bun.sleep(5);
    await registry.stop();
    try {
      const second = await openClient(nix, publicKey);
      await second.copy(server.url, [root, large]);
      await second.verify();
      expect(await second.paths()).toEqual([...closure, large].sort());
      expect(await server.stop()).toBe(0);
      server = await cli.serve(["--cache", cache(proxy.host), "--upstream", "", "--nar-cache", folder], {
        env: BRISK,
      });
      expect((await downloadAll(server, [...closure, large], nix)).size).toBe(closure.length + 1);
    } finally {
      await server.stop();
      await registry.start();
    }
    expect(readdirSync(join(folder, "filling"))).toEqual([]);
  });

  test("many clients at once cost one download of each byte", async () => {
    const folder = newFolder();
    const server = await serve(folder, "--connections", "1");
    const { url, sha256 } = await narOf(server, large);
    const before = proxy.log.length;
    const got = await Promise.all(Array.from({ length: 8 }, async () => hashed(await server.get(url))));
    expect(got).toEqual(Array.from({ length: 8 }, () => sha256));
    const sent = proxy.log
      .slice(before)
      .filter(({ origin, method }) => origin === "storage" && method === "GET")
      .reduce((sum, request) => sum + request.sent, 0);
    expect(sent).toBeGreaterThan(LARGE / 2);
    expect(sent).toBeLessThan(LARGE * 1.5);
    await server.stop();
  });

  test("killed in the middle of a download: right bytes afterwards, and nothing is left over", async () => {
    const folder = newFolder();
    const server = await serve(folder, "--connections", "1");
    const { url, sha256 } = await narOf(server, large);
    let stalled = false;
    proxy.plan = ({ origin, method }) => {
      if (origin !== "storage" || method !== "GET") return undefined;
      stalled = true;
      return { kind: "stall", after: 700_000 };
    };
    try {
      const reading = server
        .get(url)
        .then(hashed)
        .catch(() => "broken");
      while (!stalled || drafts(folder).length === 0) await Bun.sleep(5);
      process.kill(server.pid, "SIGKILL");
      expect(await reading).toBe("broken");
      await server.stop();
    } finally {
      proxy.plan = noFaults;
    }
    expect(kept(folder)).toEqual([]);
    expect(drafts(folder).length).toBe(1);
    const again = await serve(folder);
    expect(drafts(folder)).toEqual([]);
    expect(await hashed(await again.get(url))).toBe(sha256);
    await filled(folder, 1);
    const before = downloads();
    expect(await hashed(await again.get(url))).toBe(sha256);
    expect(downloads()).toBe(before);
    await again.stop();
  });

  test("two serves on one folder: one has what the other fetched, and starts and ends do not disturb it", async () => {
    const folder = newFolder();
    const one = await serve(folder);
    const { url, sha256 } = await narOf(one, large);
    expect(await hashed(await one.get(url))).toBe(sha256);
    const two = await serve(folder);
    await filled(folder, 1);
    const before = downloads();
    expect(await hashed(await two.get(url))).toBe(sha256);
    await one.stop();
    expect(await hashed(await two.get(url))).toBe(sha256);
    expect(downloads()).toBe(before);
    await two.stop();
  });

  test("bits that flipped on disk never reach a client", async () => {
    const folder = newFolder();
    const server = await serve(folder);
    const { url, sha256 } = await narOf(server, large);
    await hashed(await server.get(url));
    await filled(folder, 1);
    const file = join(folder, "blobs-v1", kept(folder)[0] ?? "");
    const handle = await open(file, "r+");
    await handle.write(Buffer.from("damaged"), 0, 7, 17 * MIB);
    await handle.close();
    const before = downloads();
    expect(await hashed(await server.get(url))).toBe(sha256);
    expect(downloads()).toBeGreaterThan(before);
    expect(await hashed(await server.get(url))).toBe(sha256);
    await server.stop();
  });

  test("the size is kept to, and a NAR larger than it passes by", async () => {
    const folder = newFolder();
    const server = await serve(folder, "--nar-cache-size", "16M");
    const { url, sha256 } = await narOf(server, large);
    for (let i = 0; i < 2; i++) expect(await hashed(await server.get(url))).toBe(sha256);
    await downloadAll(server, closure, nix);
    while (drafts(folder).length > 0) await Bun.sleep(5);
    expect(kept(folder).length).toBeGreaterThan(0);
    for (const name of kept(folder))
      expect(statSync(join(folder, "blobs-v1", name)).size).toBeLessThan(16 * MIB);
    await server.stop();
  });

  test("a folder that cannot be made: a warning, and everything is served", async () => {
    await Bun.write(cli.path("a-file"), "");
    const server = await serve(cli.path("a-file", "below"));
    const { url, sha256 } = await narOf(server, large);
    for (let i = 0; i < 2; i++) expect(await hashed(await server.get(url))).toBe(sha256);
    await server.stop();
    expect(server.log().match(/NARs are not kept on disk for now: .*a-file/g)).toHaveLength(1);
  });

  describe("of upstreams' NARs", () => {
    test("a second client has them from disk, also ranges of them", async () => {
      const upstream = await serve(newFolder());
      const folder = newFolder();
      const args = ["--cache", cli.path("empty"), "--upstream", upstream.url, "--nar-cache", folder];
      const server = await cli.serve(args, { env: BRISK });
      const first = await openClient(nix, publicKey);
      await first.copy(server.url, [root, large]);
      await filled(folder, closure.length + 1);
      await registry.stop();
      try {
        const { url, sha256, size } = await narOf(server, large);
        const second = await openClient(nix, publicKey);
        const asked = await narsAsked(upstream);
        expect(asked).toBeGreaterThan(closure.length);
        await second.copy(server.url, [root, large]);
        expect(await second.paths()).toEqual([...closure, large].sort());
        expect(await hashed(await server.get(url))).toBe(sha256);
        const range = await server.get(url, { headers: { range: `bytes=${size - 5}-` } });
        expect([range.status, (await range.bytes()).length]).toEqual([206, 5]);
        expect(await narsAsked(upstream)).toBe(asked);
      } finally {
        await registry.start();
      }
      await server.stop();
      await upstream.stop();
    });

    test("one without ranges gives what is larger than the cache, and ranges of it", async () => {
      const teacher = await serve(newFolder());
      const [known] = await learnPaths(teacher, [large], nix);
      await teacher.stop();
      if (known === undefined) throw new Error("nothing learned");
      const { narinfoUrl, narinfo, narUrl, nar } = known;
      const files = new Map([[narinfoUrl, Buffer.from(narinfo)] as const, [narUrl, nar] as const]);
      const upstream = cleanup.add(await startUpstreamDouble(files));
      const from = ["--cache", cli.path("empty"), "--upstream", upstream.url];
      const folder = newFolder();
      const server = await cli.serve([...from, "--nar-cache", folder, "--nar-cache-size", "16M"], {
        env: BRISK,
      });
      const client = new CheckedClient(server.url);
      await client.text(narinfoUrl, narinfo);
      await client.nar(known);
      await client.nar(known, { offset: 0, length: 5 });
      await client.nar(known, { offset: 7 * MIB + 1, length: 5 * MIB });
      await client.nar(known, { offset: nar.length - 5, length: 5 });
      expect(kept(folder)).toEqual([]);
      await server.stop();
    });

    test("a file that is not what its narinfo states breaks once and passes without the cache from then on", async () => {
      const upstream = await serve(newFolder());
      const { url, size } = await narOf(upstream, large);
      const narinfo = await (await upstream.get(`/${hashPart(large)}.narinfo`)).text();
      const liar = Bun.serve({
        port: 0,
        hostname: "127.0.0.1",
        fetch: ({ url: asked, method }) => {
          const { pathname } = new URL(asked);
          if (pathname === `/${hashPart(large)}.narinfo`) {
            return new Response(narinfo.replace(/^FileHash: .*$/m, `FileHash: sha256:${"0".repeat(52)}`));
          }
          if (pathname === url) return upstream.get(url, { method });
          if (pathname === "/nix-cache-info") return new Response("StoreDir: /nix/store\n");
          return new Response("", { status: 404 });
        },
      });
      const folder = newFolder();
      const from = `http://127.0.0.1:${liar.port}`;
      const args = ["--cache", cli.path("empty"), "--upstream", from, "--nar-cache", folder];
      const server = await cli.serve(args, { env: BRISK });
      try {
        await server.get(`/${hashPart(large)}.narinfo`);
        expect(
          await server
            .get(url)
            .then(hashed, () => "broken")
            .catch(() => "broken"),
        ).toBe("broken");
        const again = await server.get(url);
        expect([again.status, (await again.bytes()).length]).toEqual([200, size]);
        expect(kept(folder)).toEqual([]);
      } finally {
        await server.stop();
        await upstream.stop();
        await liar.stop(true);
      }
    });
  });

  test("a size without a folder is refused", async () => {
    const result = await cli.run(["serve", "--nar-cache-size", "1G"]);
    expect(result).toMatchObject({ code: 2, stderr: expect.stringContaining("expected --nar-cache") });
  });

  describe.skipIf(!canMount() && process.env.CI !== "true")("a disk that fills up", () => {
    test("turns the cache off for that NAR, and the client is served", async () => {
      const disk = cleanup.add(await mountSmallDisk(cli.path("small-disk"), 12 * MIB));
      const folder = join(disk.folder, "cache");
      const server = await serve(folder);
      const { url, sha256 } = await narOf(server, large);
      for (let i = 0; i < 2; i++) expect(await hashed(await server.get(url))).toBe(sha256);
      await downloadAll(server, closure, nix);
      while (drafts(folder).length > 0) await Bun.sleep(5);
      expect(kept(folder).length).toBeGreaterThan(0);
      await server.stop();
      expect(server.log().match(/NARs are not kept on disk for now: .*ENOSPC/g)).toHaveLength(1);
      rmSync(folder, { recursive: true });
    });
  });
});

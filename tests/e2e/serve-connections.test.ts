/**
 * One large NAR over several connections: storage hosts cap each, so that four bring four times as much. The storage
 * host is a real nginx behind a real registry.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { parseHash } from "../../src/nar/hash.ts";
import { parseNarInfo } from "../../src/nar/narinfo.ts";
import { registryBlob } from "../support/cache-files.ts";
import { type Cli, openCli } from "../support/cli.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { logIn, USER } from "../support/hostile.ts";
import { hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { type NginxRequest, startNginx } from "../support/nginx.ts";
import type { TestNix } from "../support/nix.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { storeVariables } from "../support/substitute.ts";

const MIB = 1024 ** 2;
const SIZE = 200 * MIB;
/** Bytes of RSS that the server may have at its peak: far less than the NAR has. */
const MOST_RSS = 160 * MIB;

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

describeWith(["nix", "registry", "nginx"], "a large NAR", () => {
  let cli: Cli;
  let nix: TestNix;
  let registry: TestRegistry;
  let path: string;
  let indexes = 0;

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    const file = join(nix.folder, "large");
    await writeRandomFile(file, SIZE, 4);
    path = (await nix.run("nix-store", ["--add", file])).trim();
    const args = ["publish", path, "--cache", `${registry.host}/large`, "--upstream", ""];
    expect(await cli.run(args, { env: storeVariables(nix) })).toMatchObject({ code: 0 });
  });

  interface Download {
    readonly seconds: number;
    readonly size: number;
    readonly peakRss: number;
    readonly requests: readonly NginxRequest[];
    readonly proxy: FaultProxy;
  }

  const download = async (connections: number): Promise<Download> => {
    const nginx = await startNginx({
      root: registry.folder,
      limitRate: "20m",
      limitConnections: connections,
    });
    const proxy = await startFaultProxy({
      registry: registry.host,
      tokens: { user: USER, uses: 1000 },
      storage: (digest) =>
        `${nginx.url}${registryBlob(registry.folder, digest).slice(registry.folder.length)}?sig=x`,
    });
    await logIn(cli, proxy.host);
    const env = { NIXCACHE_INDEX_DIR: cli.path(`index-${++indexes}`) };
    const args = ["--cache", `${proxy.host}/large`, "--upstream", "", "--connections", String(connections)];
    const server = await cli.serve(args, { env });
    try {
      expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
      const info = parseNarInfo(await (await server.get(`/${hashPart(path)}.narinfo`)).text());
      proxy.log.length = 0;
      const before = (await nginx.requests()).length;
      const start = performance.now();
      const answer = await server.get(`/${info.url}`);
      const hasher = new Bun.CryptoHasher("sha256");
      for await (const chunk of answer.body ?? []) hasher.update(chunk);
      const seconds = (performance.now() - start) / 1000;
      const expected = Buffer.from(parseHash(info.fileHash ?? "", "FileHash").bytes).toString("hex");
      expect(hasher.digest("hex")).toBe(expected);
      await nginx.stop();
      const requests = (await nginx.requests()).slice(before);
      return { seconds, size: info.fileSize ?? 0, peakRss: server.peakRss(), requests, proxy };
    } finally {
      await server.stop();
      await proxy.close();
      await nginx.close();
    }
  };

  const check = ({ requests, size, peakRss, proxy }: Download): void => {
    // nginx answers 503 to more requests at once than there may be connections.
    expect(requests.filter(({ status }) => status !== 200 && status !== 206)).toEqual([]);
    const ranges = requests.filter(({ range }) => range !== "");
    expect(ranges.length).toBeLessThan(size / MIB);
    expect(requests.length).toBe(ranges.length);
    expect(requests.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(size);
    // The link that the registry gave is good for all of them, and its token is not for the storage host.
    expect(proxy.count("GET", /\/blobs\//)).toBe(1);
    expect(requests.every(({ authorization }) => authorization === "")).toBe(true);
    expect(peakRss).toBeLessThan(MOST_RSS);
  };

  test("over four connections comes at least 3.5 times as fast as over one, each byte once", async () => {
    const one = await download(1);
    check(one);
    // nginx keeps the one back whatever else the machine does; the four want much of it, which others may have.
    let ratio = 0;
    for (let tries = 0; tries < 5 && ratio < 3.5; tries++) {
      const four = await download(4);
      check(four);
      ratio = Math.max(ratio, one.seconds / four.seconds);
      expect(new Set(four.requests.map(({ connection }) => connection)).size).toBeGreaterThanOrEqual(4);
    }
    console.log(`four connections: ${ratio.toFixed(2)} times as fast as one`);
    expect(ratio).toBeGreaterThanOrEqual(3.5);
  }, 120_000);
});

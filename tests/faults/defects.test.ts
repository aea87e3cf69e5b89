/**
 * Defects of caches like ours (PEER-DEFECTS) that concern storage, on real parts: the compiled binary and the real
 * docker-registry. Others are where they belong: `grep -rn 'defect [0-9]' tests` lists all.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { EMPTY_CONFIG, IMAGE_CONFIG } from "../../src/oci/manifest.ts";
import { endGenerations, sweep } from "../../src/protocol/end.ts";
import { Compressor } from "../../src/publish/nar-file.ts";
import { publish as publishClosure } from "../../src/publish/publish.ts";
import { silentProgress } from "../../src/terminal/progress.ts";
import { auditCache, openCacheStore } from "../support/audit.ts";
import { type Cli, type CliResult, openCli, type Variables } from "../support/cli.ts";
import type { Fault } from "../support/fault-plan.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { IMPATIENT } from "../support/hostile.ts";
import { downloadAll, hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, type TestNix } from "../support/nix.ts";
import { party, TestHost } from "../support/protocol.ts";
import { pathOf, type TestPath, testClosure } from "../support/publish.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { storeVariables } from "../support/substitute.ts";
import { startWire } from "../support/wire.ts";

const HOUR_MS = 3_600_000;
const FEW_TRIES: Variables = {
  ...IMPATIENT,
  NIXCACHE_RETRY_ATTEMPTS: "2",
  NIXCACHE_CONNECT_TIMEOUT: "500ms",
};

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

describeWith(["nix", "registry"], "what others get wrong", () => {
  let cli: Cli;
  let nix: TestNix;
  let registry: TestRegistry;
  let root: string;
  let paths: string[];

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    const closure = await buildClosure(nix, { paths: 30, seed: 31 });
    root = closure.root;
    paths = [...closure.paths].sort();
  });

  const proxied = async (): Promise<FaultProxy> =>
    cleanup.add(await startFaultProxy({ registry: registry.host }));
  const publish = (cache: string, own: readonly string[], env: Variables = {}): Promise<CliResult> =>
    cli.run(["publish", ...own, "--cache", cache, "--upstream", ""], {
      env: { ...storeVariables(nix), ...env },
    });
  const serve = async (cache: string, env: Variables = {}, ...more: string[]) => {
    const index = { NIXCACHE_INDEX_DIR: cli.path(`index-${crypto.randomUUID()}`) };
    const args = ["--cache", cache, ...(more.length > 0 ? more : ["--upstream", ""])];
    const server = await cli.serve(args, { env: { ...index, ...env } });
    expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
    return server;
  };
  /** Every tag with what it points to. */
  const tagsOf = async (cache: string) => {
    const store = openCacheStore(cache);
    const tags = (await store.listTags()).sort();
    return Promise.all(tags.map(async (tag) => [tag, await store.statManifest(tag)]));
  };

  test("defect 1: an index that cannot be fetched is no empty one: publish stops, and the cache is untouched", async () => {
    const proxy = await proxied();
    expect(await publish(`${registry.host}/d1`, [paths[0] as string])).toMatchObject({ code: 0 });
    const before = await tagsOf(`${registry.host}/d1`);
    const faults: Fault[] = [
      ...(["rate-limit", "secondary-limit", "internal-error", "bad-gateway", "unavailable"] as const).map(
        (name) => ({ kind: "answer", name }) as const,
      ),
      { kind: "reset" },
      { kind: "answer-lost" },
      { kind: "silence" },
      { kind: "reset-answer", after: 20 },
      { kind: "truncate", after: 20, clean: true },
      { kind: "truncate", after: 20, clean: false },
    ];
    for (const of of [/tags\/list$/, /manifests\/nixcache-index$/]) {
      for (const fault of faults) {
        // A root that comes damaged is read from the segments instead.
        if (fault.kind === "truncate" && fault.clean && of.test("/manifests/nixcache-index")) continue;
        proxy.log.length = 0;
        proxy.plan = ({ path }) => (of.test(path) ? fault : undefined);
        const env = { ...FEW_TRIES, NIXCACHE_INDEX_DIR: cli.path(`d1-${crypto.randomUUID()}`) };
        const { code, stderr } = await publish(`${proxy.host}/d1`, [root], env);
        expect({ fault, code, stderr }).toMatchObject({ code: expect.any(Number) });
        expect([8, 11]).toContain(code);
        expect(proxy.log.filter(({ method }) => method !== "GET" && method !== "HEAD")).toEqual([]);
      }
    }
    expect(await tagsOf(`${registry.host}/d1`)).toEqual(before);
  }, 120_000);

  test("defect 3: after the registry's garbage collection, untagged manifests and all, every NAR is there", async () => {
    const cache = `${registry.host}/d3`;
    for (const own of [[paths[0] as string], [root]])
      expect(await publish(cache, own)).toMatchObject({ code: 0 });
    await registry.collectGarbage({ untagged: true });
    expect(await auditCache(cache)).toEqual(paths);
  });

  test("defect 5: an upload that fails for good is an exit status, and leaves no entry without its references", async () => {
    const proxy = await proxied();
    let refused = "";
    proxy.plan = ({ method, path }) => {
      // The first NARs that are uploaded, every time.
      if (method !== "PUT" || !path.includes("/uploads/")) return undefined;
      // Not what every manifest names, nor what the probe of the registry does.
      if ([EMPTY_CONFIG, IMAGE_CONFIG].some(({ digest }) => path.endsWith(digest))) return undefined;
      if (refused === "") refused = path;
      return path === refused ? { kind: "answer", name: "internal-error" } : undefined;
    };
    const { code, stderr } = await publish(`${proxy.host}/d5`, [root], FEW_TRIES);
    expect({ code, refused }).toEqual({ code: 12, refused: expect.stringMatching(/sha256:/) });
    expect(stderr).toContain("left out");
    expect(await auditCache(`${registry.host}/d5`)).not.toContain(root);
    expect(await publish(`${registry.host}/d5`, [root])).toMatchObject({ code: 0 });
    expect(await auditCache(`${registry.host}/d5`)).toEqual(paths);
  });

  test("defect 6: whether a blob is there is asked for by HEAD, to the registry itself, and no body comes", async () => {
    const proxy = cleanup.add(await startFaultProxy({ registry: registry.host, redirects: true }));
    const killed = cli.start(["publish", root, "--cache", `${proxy.host}/d6`, "--upstream", ""], {
      env: storeVariables(nix),
    });
    proxy.before = async ({ method, path }) => {
      if (method !== "PUT" || !path.includes("/manifests/seg-")) return undefined;
      killed.kill();
      await killed.result;
      return "drop";
    };
    await killed.result;
    proxy.before = () => undefined;
    proxy.log.length = 0;
    expect(await publish(`${proxy.host}/d6`, [root])).toMatchObject({ code: 0 });
    const heads = proxy.log.filter(({ method, path }) => method === "HEAD" && path.includes("/blobs/"));
    expect(heads.length).toBeGreaterThan(0);
    expect(heads.every(({ sent, status }) => sent === 0 && (status === 200 || status === 404))).toBe(true);
    // Nothing was committed, so no index layer is read before the commit: no blob is fetched at all.
    const commit = proxy.log.findIndex(
      ({ method, path }) => method === "PUT" && path.includes("/manifests/seg-"),
    );
    expect(commit).toBeGreaterThan(0);
    const fetched = proxy.log
      .slice(0, commit)
      .filter(({ method, path }) => method === "GET" && /sha256/.test(path));
    expect(fetched).toEqual([]);
  });

  test("defect 9: a registry that is down is no loss: NAR 404, resumed 503, index as it was, and all is well once it is back", async () => {
    const cache = `${registry.host}/d9`;
    expect(await publish(cache, [root])).toMatchObject({ code: 0 });
    const server = await serve(cache, FEW_TRIES);
    const narinfo = async () => server.get(`/${hashPart(root)}.narinfo`);
    const url = /^URL: (.+)$/m.exec(await (await narinfo()).text())?.[1];
    await registry.stop();
    try {
      expect((await server.get(`/${url}`)).status).toBe(404);
      const resumed = await server.get(`/${url}`, { headers: { range: "bytes=10-" } });
      expect([resumed.status, resumed.headers.get("accept-ranges")]).toEqual([503, "bytes"]);
      expect((await server.get("/_refresh", { method: "POST" })).status).toBe(502);
      expect([(await narinfo()).status, (await server.get("/nix-cache-info")).status]).toEqual([200, 200]);
    } finally {
      await registry.start();
    }
    expect((await server.get(`/${url}`)).status).toBe(200);
    await server.stop();
  });

  test("defect 14: a NAR that two entries share outlives the end of one of them", async () => {
    const cache = `${registry.host}/d14`;
    const host = new TestHost(Date.UTC(2026, 0, 1));
    using context = party(openCacheStore(cache), host);
    const add = async (source: string, own: readonly TestPath[]): Promise<string> => {
      const { closure, dump } = testClosure(own);
      const more = {
        upstreams: [],
        dump,
        key: undefined,
        compressor: new Compressor(1, 1),
        partBytes: 1 << 30,
      };
      const result = await publishClosure(
        closure,
        { tool: "test", source, roots: {} },
        { ...context, ...more, unitsAtOnce: 1, progress: silentProgress() },
      );
      return result.generation as string;
    };
    // The same path in both, and another path with the same content.
    const over = await add("one", [{ name: "shared" }, { name: "alone" }]);
    await add("two", [{ name: "shared" }, { name: "copy", content: "shared" }]);
    host.time += 30 * HOUR_MS;
    expect(await endGenerations(context, [over])).toEqual([over]);
    host.time += 30 * HOUR_MS;
    expect((await sweep(context)).deleted.length).toBeGreaterThan(0);
    await registry.collectGarbage({ untagged: true });
    const store = openCacheStore(cache);
    expect((await store.listTags()).filter((tag) => tag.startsWith("seg-")).length).toBe(1);
    // These NARs are no archives, but their bytes must be those of their hashes.
    expect(await auditCache(cache)).toEqual([pathOf("copy"), pathOf("shared")].sort());
  });

  test("defect 17: an upstream that is cut off in the middle is a broken transfer, not a short NAR", async () => {
    const upstream = cleanup.add(
      await startWire(async (request, answer) => {
        if (!request.target.startsWith("/nar/"))
          return answer.write("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n");
        await answer.write(`HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n${"x".repeat(50_000)}`);
        answer.end();
      }),
    );
    const server = await serve(cli.path("d17"), {}, "--upstream", `http://${upstream.host}`);
    const read = async () => {
      const answer = await server.get("/nar/0123456789.nar.xz");
      const { length } = await answer.bytes();
      // The end may be seen before anything was passed on: then it is an error of its own.
      if (answer.status >= 400) throw new Error(`status ${answer.status}`);
      return { status: answer.status, length };
    };
    await expect(read()).rejects.toThrow();
    await server.stop();
  });

  test("defect 18: FileHash, FileSize and Compression are those of the bytes, for every path", async () => {
    const cache = cli.path("d18");
    expect(await publish(cache, [root])).toMatchObject({ code: 0 });
    const server = await serve(cache);
    for (const { narinfo } of (await downloadAll(server, paths, nix)).values()) {
      expect(narinfo).toMatch(/^Compression: zstd$/m);
      expect(narinfo).toMatch(/^URL: nar\/[0-9a-z]{52}\.nar\.zst$/m);
    }
    await server.stop();
  });

  test("defect 24: capitals in a repository's name are lower-cased, which registries want", async () => {
    expect(await publish(`${registry.host}/Owner/Repo/Nix-Cache`, [root])).toMatchObject({ code: 0 });
    expect(await auditCache(`${registry.host}/owner/repo/nix-cache`)).toEqual(paths);
    const server = await serve(`${registry.host}/OWNER/repo/nix-cache`);
    expect((await server.get(`/${hashPart(root)}.narinfo`)).status).toBe(200);
    await server.stop();
  });
});

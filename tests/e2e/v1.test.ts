/**
 * A cache of nixcache-oci on the real docker-registry, with NARs that the real Nix and xz made: served as it is, then
 * adopted, then served by both kinds of URL after the registry's own collector has run.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { openCacheStore } from "../support/audit.ts";
import { type Cli, type CliServer, openCli, type Variables } from "../support/cli.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, shellDerivation, type TestClosure, type TestNix } from "../support/nix.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { choices } from "../support/seed-choices.ts";
import { openClient, storeVariables } from "../support/substitute.ts";
import { bent, pushV1, type V1Path } from "../support/v1-cache.ts";
import { exportV1, makeV1Key, startOldNarInfos } from "../support/v1-nix.ts";

const PATHS = 40;

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

describeWith(["nix", "registry"], "a cache of nixcache-oci", () => {
  let cli: Cli;
  let nix: TestNix;
  let registry: TestRegistry;
  let proxy: FaultProxy;
  let closure: TestClosure;
  let exported: V1Path[];
  let publicKey: string;

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    publicKey = await makeV1Key(nix);
    closure = await buildClosure(nix, { paths: PATHS, seed: 11 });
    exported = await exportV1(nix, closure.paths);
  }, 120_000);

  /** A cache of nixcache-oci in a registry of its own, as its blobs are shared by all repositories; behind a proxy. */
  async function oldCache(paths: readonly V1Path[] = exported): Promise<string> {
    registry = cleanup.add(await startRegistry());
    proxy = cleanup.add(await startFaultProxy({ registry: registry.host }));
    const more = { public_key: publicKey, gc_roots: [closure.root.slice(11, 43)] };
    await pushV1(openCacheStore(`${registry.host}/cache`), paths, more);
    return `${proxy.host}/cache`;
  }

  let machines = 0;
  /** A machine that has never seen the cache. */
  const machine = () => ({ NIXCACHE_INDEX_DIR: cli.path(`index-${++machines}`) });

  async function serve(cache: string): Promise<CliServer> {
    const server = await cli.serve(["--cache", cache, "--upstream", ""], { env: machine() });
    expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
    return server;
  }

  const run = (args: readonly string[], env: Variables = machine()) =>
    cli.run(args, { env: { ...storeVariables(nix), ...env } });

  const tagOf = (cache: string) =>
    openCacheStore(cache.replace(proxy.host, registry.host)).statManifest("cache-index");

  /** Nix takes everything into an empty store that checks signatures, by the narinfos of `url`. */
  async function substitute(url: string, paths = closure.paths): Promise<void> {
    const client = await openClient(nix, publicKey);
    await client.realise(url, [closure.root]);
    expect(await client.paths()).toEqual([...paths].sort());
    await client.verify();
  }

  async function expectBothUrls(server: CliServer, paths: readonly V1Path[]): Promise<void> {
    for (const { hash, oldUrl, newUrl, content, fields } of paths) {
      const narinfo = await (await server.get(`/${hash}.narinfo`)).text();
      const sigs = (text: string) => text.match(/^Sig: .*$/gm);
      expect(sigs(narinfo)).toEqual(sigs(fields.narinfo));
      for (const url of [oldUrl, newUrl]) {
        const answer = await server.get(`/${url}`);
        expect([url, answer.status]).toEqual([url, 200]);
        expect(Buffer.compare(await answer.bytes(), content)).toBe(0);
        expect((await server.get(`/${url}`, { method: "HEAD" })).headers.get("content-length")).toBe(
          String(content.length),
        );
      }
    }
  }

  /** Digests of blobs that were uploaded through the proxy. */
  const uploaded = () =>
    proxy.log.flatMap(({ method, query }) =>
      method === "PUT" && query.includes("digest=") ? (new URLSearchParams(query).get("digest") ?? []) : [],
    );

  test("is served as it is, adopted without an upload, and outlives the registry's collector", async () => {
    const cache = await oldCache();
    const tag = await tagOf(cache);
    const before = await serve(cache);
    await substitute(before.url);
    await expectBothUrls(before, exported);
    expect((await (await before.get("/public-key")).text()).trim()).toBe(publicKey);
    expect(await (await before.get("/_status")).json()).toMatchObject({
      index_entries: PATHS,
      index_generations: 0,
      index_generated: "2026-04-24T14:20:11Z",
      public_keys: [publicKey],
    });
    expect(proxy.log.filter(({ method }) => !["GET", "HEAD"].includes(method))).toEqual([]);

    const dry = await run(["gc", "--cache", cache, "--dry-run"]);
    expect(dry).toMatchObject({ code: 0 });
    expect(dry.stderr).toContain("would first adopt the cache of nixcache-oci");
    expect(proxy.log.filter(({ method }) => !["GET", "HEAD"].includes(method))).toEqual([]);

    const gc = await run(["gc", "--cache", cache, "--json"]);
    expect(gc).toMatchObject({ code: 0 });
    expect(gc.stderr).toContain(`adopted ${PATHS} paths of nixcache-oci`);
    expect(JSON.parse(gc.stdout)).toMatchObject({
      adopted: { paths: PATHS, leftOut: 0 },
      decisions: [{ source: "nixcache-oci" }],
    });
    // The index layers of segment and root, and two empty configs, one of them for the probe: no NAR.
    expect(uploaded().length).toBe(4);
    expect(uploaded().filter((digest) => exported.some((path) => path.digest === digest))).toEqual([]);
    expect(
      proxy.log.filter(({ method, path }) => method === "PUT" && path.endsWith("/manifests/cache-index")),
    ).toEqual([]);
    expect(await tagOf(cache)).toBe(tag as never);

    // The server that has run all the time, and one that knows nothing.
    expect((await before.get("/_refresh", { method: "POST" })).status).toBe(200);
    expect(await (await before.get("/_status")).json()).toMatchObject({
      index_generations: 1,
      index_entries: PATHS,
    });
    await before.stop();
    await registry.collectGarbage();
    const after = await serve(cache);
    await expectBothUrls(after, exported);
    await substitute(after.url);
    const old = startOldNarInfos(exported, after.url);
    try {
      await substitute(old.url);
    } finally {
      await old.close();
    }

    const verified = await run(["verify", "--cache", cache, "--upstream", "", "--deep", "--json"]);
    expect(verified).toMatchObject({ code: 0 });
    expect(JSON.parse(verified.stdout)).toMatchObject({
      clean: true,
      entries: PATHS,
      unsigned: 0,
      findings: [],
    });
    await after.stop();
  }, 240_000);

  test("that nobody adopts loses its NARs to the registry's collector: then it says so, and is adopted as what is left", async () => {
    const cache = await oldCache();
    const unadopted = await run(["verify", "--cache", cache, "--upstream", ""]);
    expect(unadopted).toMatchObject({ code: 0 });
    expect(unadopted.stderr).toContain("an index of nixcache-oci is served as it is");
    await registry.collectGarbage();
    const gc = await run(["gc", "--cache", cache]);
    expect(gc).toMatchObject({ code: 0 });
    expect(gc.stderr).toContain(`${PATHS} of ${PATHS} paths are left out: `);
    expect(gc.stderr).toContain("and 35 more");
  }, 120_000);

  test("is adopted by the first publish, which uploads only what is new", async () => {
    const cache = await oldCache();
    const script = `mkdir $out; ln -s \${old} $out/old`;
    const old = `let old = builtins.storePath ${closure.root}; in`;
    const root = await nix.build(`${old} ${shellDerivation("new", script)}`);
    const args = ["publish", root, "--cache", cache, "--upstream", "", "--json"];
    const published = await run(args);
    expect(published).toMatchObject({ code: 0 });
    expect(published.stderr).toContain(`adopted ${PATHS} paths of nixcache-oci`);
    expect(JSON.parse(published.stdout)).toMatchObject({
      adopted: { paths: PATHS, leftOut: 0 },
      paths: { closure: PATHS + 1, restated: PATHS, uploaded: 1 },
    });
    expect(uploaded().filter((digest) => exported.some((path) => path.digest === digest))).toEqual([]);
    await registry.collectGarbage();
    const server = await serve(cache);
    await substitute(server.url);
    await server.stop();
    const again = await run(args);
    expect(JSON.parse(again.stdout).adopted).toBeUndefined();
  }, 180_000);

  test("has broken entries: they are listed, and cost no more than what needs them", async () => {
    const root = exported.find(({ hash }) => closure.root.includes(hash));
    const [, reference = ""] = /^References: (\w+)-/m.exec(root?.fields.narinfo ?? "") ?? [];
    const leaf = exported.find(({ hash }) => hash === reference) as V1Path;
    const paths = exported.map((path) =>
      path === leaf ? bent(path, () => ({ nar_digest: "sha256:nothing" })) : path,
    );
    const cache = await oldCache(paths);
    const server = await serve(cache);
    expect((await server.get(`/${leaf.hash}.narinfo`)).status).toBe(404);
    expect((await server.get(`/${closure.root.slice(11, 43)}.narinfo`)).status).toBe(200);
    const gc = await run(["gc", "--cache", cache], { ...machine(), NIXCACHE_UPSTREAM: "" });
    expect(gc).toMatchObject({ code: 0 });
    expect(gc.stderr).toContain(`"${leaf.fields.name}" (`);
    expect(gc.stderr).toContain("left out");
    expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
    // What refers to it is gone, the rest is whole.
    expect((await server.get(`/${closure.root.slice(11, 43)}.narinfo`)).status).toBe(404);
    const { index_entries } = (await (await server.get("/_status")).json()) as { index_entries: number };
    expect(index_entries).toBeGreaterThan(0);
    const verified = await run(["verify", "--cache", cache, "--upstream", "", "--json"]);
    expect(JSON.parse(verified.stdout)).toMatchObject({ clean: true, entries: index_entries });
    await server.stop();
    expect(server.log()).toContain(`1 of ${PATHS} entries are broken: "${leaf.fields.name}" (`);
  }, 120_000);

  test("is adopted by many at once, some of them killed: nothing is lost", async () => {
    const choose = choices("v1 adopters");
    for (let round = 0; round < 4; round++) {
      const cache = await oldCache();
      const victim = cli.start(["gc", "--cache", cache], { env: machine() });
      let left = choose.below(PATHS + 12);
      proxy.before = () => {
        if (left-- === 0) victim.kill();
        return undefined;
      };
      const others = [
        run(["gc", "--cache", cache]),
        run(["publish", closure.root, "--cache", cache, "--upstream", ""]),
      ];
      const results = await Promise.all(others);
      proxy.before = () => undefined;
      victim.kill();
      await victim.result;
      for (const result of results) expect(result).toMatchObject({ code: 0 });
      expect(uploaded().filter((digest) => exported.some((path) => path.digest === digest))).toEqual([]);
      await registry.collectGarbage();
      const server = await serve(cache);
      await expectBothUrls(server, exported);
      await server.stop();
    }
  }, 240_000);
});

/**
 * A hostile registry: with every request failing one time in five, in all the ways of the fault proxy, 200 paths
 * are published and read back. With a registry that is down both fail soon, and the cache is unchanged.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { auditCache } from "../support/audit.ts";
import { type Cli, openCli, type Variables } from "../support/cli.ts";
import { randomPlan } from "../support/fault-plan.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { IMPATIENT, logIn, USER } from "../support/hostile.ts";
import { downloadAll } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, type TestNix } from "../support/nix.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { expectRefusal } from "../support/refusal.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { choices } from "../support/seed-choices.ts";
import { storeVariables } from "../support/substitute.ts";

/** In all, with those that have a blob of their own. */
const PATHS = 200;
const LARGE = 20;
const TIMEOUT = 300_000;

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

describeWith(["nix", "registry"], "a hostile registry", () => {
  let cli: Cli;
  let nix: TestNix;
  let registry: TestRegistry;
  let root: string;
  let paths: string[];
  let large: string[];

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    const closure = await buildClosure(nix, { paths: PATHS - LARGE, seed: 200 });
    const files = Array.from({ length: LARGE }, (_, seed) => join(nix.folder, `large-${seed}`));
    for (const [seed, file] of files.entries()) await writeRandomFile(file, 1_100_000, seed);
    large = (await nix.run("nix-store", ["--add", ...files])).trim().split("\n");
    root = closure.root;
    paths = [...closure.paths, ...large].sort();
  });

  const publish = (cache: string, env: Variables = {}, ...own: string[]) =>
    cli.run(["publish", ...own, "--cache", cache, "--upstream", ""], {
      env: { ...storeVariables(nix), ...env },
    });

  test(
    "one request in five fails: 200 paths are published, read back, and are right",
    async () => {
      const { seed } = choices("faults");
      const proxy = cleanup.add(
        await startFaultProxy({
          ...{ registry: registry.host, plan: randomPlan({ seed, probability: 0.2 }) },
          ...{ tokens: { user: USER, uses: 50 }, redirects: true, lateTags: 1, refusesDeletion: true },
        }),
      );
      await logIn(cli, proxy.host);
      const cache = `${proxy.host}/faults`;
      // In several runs, so that there are segments to be read beside the root.
      for (const own of [paths.slice(0, 3), paths.slice(50, 80), [root, ...large]]) {
        const published = await publish(cache, IMPATIENT, ...own);
        expect(published).toMatchObject({ code: 0 });
      }
      expect(await auditCache(`${registry.host}/faults`)).toEqual(paths);
      const env = { ...IMPATIENT, NIXCACHE_INDEX_DIR: cli.path("index-faults") };
      const server = await cli.serve(["--cache", cache, "--upstream", ""], { env });
      expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
      await downloadAll(server, paths, nix);
      await server.stop();
      tell(proxy);
      // A plan under which nothing happens would prove nothing.
      const faults = proxy.log.filter(({ fault }) => fault !== undefined);
      expect(faults.length / proxy.log.length).toBeGreaterThan(0.12);
      expect(new Set(faults.map(({ fault }) => fault?.kind)).size).toBeGreaterThan(5);
    },
    TIMEOUT,
  );

  test(
    "one that refuses artifact types and shows manifests late",
    async () => {
      const { seed } = choices("faults late");
      const plan = randomPlan({ seed, probability: 0.1 });
      const odd = { refusesArtifactTypes: 415, lateTags: 2, lateManifests: 1 };
      const proxy = cleanup.add(await startFaultProxy({ registry: registry.host, plan, ...odd }));
      expect(await publish(`${proxy.host}/late`, IMPATIENT, root, ...large)).toMatchObject({ code: 0 });
      expect(await auditCache(`${registry.host}/late`)).toEqual(paths);
    },
    TIMEOUT,
  );

  test("one that always fails: as many tries as were set, one sentence, and the cache is unchanged", async () => {
    const cache = `${registry.host}/always`;
    const [first] = paths as [string];
    expect(await publish(cache, {}, first)).toMatchObject({ code: 0 });
    const had = await auditCache(cache);
    const proxy = cleanup.add(await startFaultProxy({ registry: registry.host }));
    const tries = { ...IMPATIENT, NIXCACHE_RETRY_ATTEMPTS: "4" };
    for (const name of ["unavailable", "rate-limit", "secondary-limit", "bad-gateway"] as const) {
      proxy.log.length = 0;
      proxy.plan = () => ({ kind: "answer", name });
      const failed = await publish(`${proxy.host}/always`, tries, root);
      expectRefusal(failed, { code: 8, says: /GET .*\/tags\/list: got \d+.*\(4 tries in/ });
      // Of the root and of the tags; where the page size may be to blame, of which three are tried, without it again.
      expect(proxy.log.length).toBe(name.endsWith("limit") ? 8 : 11);
    }
    // Only writing fails: what was decided before costs nothing either.
    proxy.log.length = 0;
    proxy.plan = ({ method }) =>
      method === "PUT" || method === "POST" ? { kind: "answer", name: "internal-error" } : undefined;
    const failed = await publish(`${proxy.host}/always`, tries, root);
    expect(failed.code).not.toBe(0);
    expect(proxy.log.length).toBeLessThan(200);
    expect(await auditCache(cache)).toEqual(had);
  });

  test("one that is down: publish and serve say so in one sentence, and the cache is unchanged", async () => {
    const cache = `${registry.host}/down`;
    const [first] = paths as [string];
    expect(await publish(cache, {}, first)).toMatchObject({ code: 0 });
    const had = await auditCache(cache);
    await registry.stop();
    try {
      const failed = await publish(cache, {}, root);
      expectRefusal(failed, { code: 8, says: /nobody listens there \(connection refused\) \(3 tries/ });
      const env = { NIXCACHE_INDEX_DIR: cli.path("index-down") };
      const server = await cli.serve(["--cache", cache, "--upstream", ""], { env });
      expect((await server.get("/_refresh", { method: "POST" })).status).toBe(502);
      expect((await server.get("/nix-cache-info")).status).toBe(503);
      expect(server.log().trim().split("\n").length).toBe(1);
      await server.stop();
    } finally {
      await registry.start();
    }
    expect(await auditCache(cache)).toEqual(had);
  });
});

/** What there was to endure. */
function tell({ log }: FaultProxy): void {
  const kinds = new Map<string, number>();
  for (const { fault } of log) {
    if (fault === undefined) continue;
    const kind = fault.kind === "answer" ? fault.name : fault.kind;
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  const list = [...kinds].sort(([, a], [, b]) => b - a).map(([kind, count]) => `${count} ${kind}`);
  console.log(`${log.length} requests: ${list.join(", ")}`);
}

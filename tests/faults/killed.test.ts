/**
 * Killed anywhere, nothing breaks: publish is ended by SIGKILL at 100 points spread over its run. After each the
 * cache reads and contains only complete entries, a second run finishes, and nothing is uploaded twice.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { ROOT } from "../../scripts/process.ts";
import { auditCache, namedBlobs, openCacheStore } from "../support/audit.ts";
import { layoutBlob } from "../support/cache-files.ts";
import { type Cli, openCli, type RunOptions } from "../support/cli.ts";
import { type FaultProxy, type LoggedRequest, startFaultProxy } from "../support/fault-proxy.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, type TestNix } from "../support/nix.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { type Choices, choices } from "../support/seed-choices.ts";
import { storeVariables } from "../support/substitute.ts";

const POINTS = Number(process.env.NIXCACHE_KILLS ?? 100);
/** Milliseconds; a point takes half a second on two idle cores. */
const TIMEOUT = 400_000;
const KILL_POINTS = join(ROOT, "tests", "support", "kill-points.ts");
const MAIN = join(ROOT, "src", "main.ts");

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

describeWith(["nix", "registry"], "publish, killed", () => {
  let cli: Cli;
  let nix: TestNix;
  let registry: TestRegistry;
  /** What the cache has before a run, and what is published to be killed: it includes the former. */
  let before: string[];
  let after: string[];

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    const { root, paths } = await buildClosure(nix, { paths: 12, seed: 9 });
    before = await requisites(paths.find((path) => path !== root) as string);
    // Over 1 MiB each: blobs of their own beside the pack.
    const large: string[] = [];
    for (const seed of [5, 6, 7]) {
      const file = join(nix.folder, `large-${seed}`);
      await writeRandomFile(file, 1_200_000, seed);
      large.push((await nix.run("nix-store", ["--add", file])).trim());
    }
    after = [...paths, ...large].sort();
  });

  const requisites = async (path: string): Promise<string[]> =>
    (await nix.run("nix-store", ["--query", "--requisites", path])).trim().split("\n").sort();

  const args = (cache: string, paths: readonly string[]) => [
    ...["publish", ...paths, "--cache", cache, "--upstream", "", "--json"],
  ];
  const machine = (name: string): RunOptions => ({
    env: { ...storeVariables(nix), NIXCACHE_INDEX_DIR: cli.path("machines", name) },
  });

  /** What must hold once a process was killed at any point. */
  const survives = async (cache: string, isCommitted: boolean, had: readonly string[]): Promise<void> => {
    expect(await auditCache(cache)).toEqual(isCommitted ? after : [...had]);
  };

  const second = async (cache: string, name: string): Promise<void> => {
    const result = await cli.run(args(cache, after), machine(name));
    expect(result).toMatchObject({ code: 0 });
    expect(result.stderr).not.toContain("[warn]");
    expect(await auditCache(cache)).toEqual(after);
  };

  test(
    `at ${POINTS} requests to a registry`,
    async () => {
      const random = choices("killed at a registry");
      const totals = new Map<string, number>();
      for (let i = 0; i < POINTS; i++) {
        // A registry that takes manifests with missing blobs gets holds before the commit.
        const lax = i % 2 === 1;
        const had = i % 4 < 2 ? before : [];
        const kind = `${lax} ${had.length > 0}`;
        let total = totals.get(kind);
        if (total === undefined) {
          const log = await registryRun(`killed/count-${i}`, { lax, had });
          total = log.length;
          totals.set(kind, total);
        }
        const point = 1 + random.below(total);
        await registryRun(`killed/point-${i}`, {
          lax,
          had,
          kill: { point, when: random.random() < 0.5 ? "before" : "after" },
        });
      }
      console.log(`requests of a whole run (lax, cache not empty): ${JSON.stringify([...totals])}`);
    },
    TIMEOUT,
  );

  /** Publishes through a proxy, killed at a request or not, then again. Answers the requests of the first run. */
  const registryRun = async (
    name: string,
    run: { lax: boolean; had: readonly string[]; kill?: { point: number; when: "before" | "after" } },
  ): Promise<LoggedRequest[]> => {
    const proxy = await startFaultProxy({ registry: registry.host, acceptsMissingBlobs: run.lax });
    try {
      const cache = `${registry.host}/${name}`;
      const behind = `${proxy.host}/${name}`;
      if (run.had.length > 0) {
        expect(await cli.run(args(behind, [...run.had]), machine(`${name}-first`))).toMatchObject({
          code: 0,
        });
      }
      const from = proxy.log.length;
      const publisher = cli.start(args(behind, after), machine(name));
      const hook = async (request: LoggedRequest) => {
        if (request.number - from !== run.kill?.point) return undefined;
        publisher.kill();
        await publisher.result;
        return "drop" as const;
      };
      if (run.kill?.when === "before") proxy.before = hook;
      if (run.kill?.when === "after") proxy.after = async (request) => void (await hook(request));
      const { code, stderr } = await publisher.result;
      expect({ code, stderr }).toMatchObject({ code: run.kill === undefined ? 0 : 137 });
      const log = proxy.log.slice(from);
      if (run.kill === undefined) return log;
      const isCommitted = log.some(
        ({ method, path, done }) => done && method === "PUT" && path.includes("/manifests/seg-"),
      );
      await survives(cache, isCommitted, run.had);
      await second(behind, name);
      expect(uploadedTwice(proxy)).toEqual([]);
      return log;
    } catch (error) {
      throw new Error(`${name} ${JSON.stringify(run)}`, { cause: error });
    } finally {
      await proxy.close();
    }
  };

  test(
    `at ${POINTS} changes of files of a layout`,
    async () => {
      const random = choices("killed at a layout");
      const totals = new Map<number, number>();
      for (let i = 0; i < POINTS; i++) {
        const had = i % 2 === 0 ? before : [];
        let total = totals.get(had.length);
        if (total === undefined) {
          const file = cli.path(`count-${i}`);
          await layoutRun(cli.path(`layout-count-${i}`), had, random, { KILL_COUNT_FILE: file });
          total = Number(await readFile(file, "utf8"));
          totals.set(had.length, total);
        }
        const KILL_POINT = String(1 + random.below(total));
        const KILL_WHEN = random.random() < 0.5 ? "before" : "after";
        await layoutRun(cli.path(`layout-${i}`), had, random, { KILL_POINT, KILL_WHEN });
      }
      expect(unreached).toBeLessThan(POINTS / 10);
      console.log(`changes of files of a whole run (paths in the cache): ${JSON.stringify([...totals])}`);
    },
    TIMEOUT,
  );

  /** Runs that ended before the change at which they were to be killed. */
  let unreached = 0;

  /** Publishes into a folder, killed at a change of a file or not, then again. */
  const layoutRun = async (
    cache: string,
    had: readonly string[],
    random: Choices,
    env: Record<string, string>,
  ) => {
    const name = `layout-${random.below(2 ** 31)}`;
    const options = machine(name);
    try {
      if (had.length > 0)
        expect(await cli.run(args(cache, [...had]), machine(`${name}-first`))).toMatchObject({ code: 0 });
      const program = [process.execPath, "--preload", KILL_POINTS, MAIN];
      const { code, stderr } = await cli.start(args(cache, after), {
        ...options,
        env: { ...options.env, ...env },
        program,
      }).result;
      if (env.KILL_POINT === undefined) return expect({ code, stderr }).toMatchObject({ code: 0 });
      // Half a second after the commit the index's files are forced to disk: a run that is faster has fewer changes.
      if (code === 0) unreached++;
      else expect({ code, stderr }).toMatchObject({ code: 137 });
      const store = openCacheStore(cache);
      const tags = (await store.listTags()).filter((tag) => tag.startsWith("seg-"));
      await survives(cache, tags.length > (had.length > 0 ? 1 : 0), had);
      const named = await identities(cache, await namedBlobs(store));
      await second(cache, name);
      // A file that is written again is another one.
      expect(await identities(cache, named.keys())).toEqual(named);
    } catch (error) {
      throw new Error(`${cache} ${JSON.stringify(env)}`, { cause: error });
    }
  };
});

/** Digests that were uploaded to the end more than once. */
function uploadedTwice({ log }: FaultProxy): string[] {
  const uploads = log.flatMap(({ method, query, done }) => {
    const digest = new URLSearchParams(query).get("digest");
    return method === "PUT" && done && digest !== null ? [digest] : [];
  });
  return uploads.filter((digest, i) => uploads.indexOf(digest) !== i);
}

/** The file of each blob of a layout: which one it is on its disk. */
async function identities(layout: string, digests: Iterable<string>): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for (const digest of digests) found.set(digest, (await stat(layoutBlob(layout, digest))).ino);
  return found;
}

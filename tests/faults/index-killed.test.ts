/** serve, killed while it writes its local index, starts again clean: with the old view or the new one. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { ROOT } from "../../scripts/process.ts";
import { IndexDatabase } from "../../src/cache/database.ts";
import { type Cli, type CliServer, openCli, type RunOptions, type Variables } from "../support/cli.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { downloadAll } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, type TestNix } from "../support/nix.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { choices } from "../support/seed-choices.ts";
import { storeVariables } from "../support/substitute.ts";

const POINTS = 25;
const TIMEOUT = 300_000;
const KILLED = 137;
const PROGRAM = [
  process.execPath,
  ...["--preload", join(ROOT, "tests", "support", "kill-points.ts")],
  join(ROOT, "src", "main.ts"),
];

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

describeWith(["nix", "registry"], "serve, killed while it writes its index", () => {
  let cli: Cli;
  let nix: TestNix;
  let registry: TestRegistry;
  let cache: string;
  let paths: readonly string[];
  let indexes = 0;

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    cache = `${registry.host}/index-killed`;
    paths = (await buildClosure(nix, { paths: 30, seed: 30 })).paths;
    for (const path of paths.slice(0, 3).concat(paths)) {
      const args = ["publish", path, "--cache", cache, "--upstream", ""];
      expect(await cli.run(args, { env: storeVariables(nix) })).toMatchObject({ code: 0 });
    }
  }, TIMEOUT);

  const freshIndex = async (): Promise<Variables> => {
    const NIXCACHE_INDEX_DIR = cli.path(`index-${++indexes}`);
    await mkdir(NIXCACHE_INDEX_DIR);
    return { NIXCACHE_INDEX_DIR };
  };

  /** On the index that a killed one has left: nothing of what it was about to write, or all of it. */
  const startsClean = async (host: string, env: Variables): Promise<void> => {
    for await (const file of new Bun.Glob("*.sqlite").scan({
      cwd: env.NIXCACHE_INDEX_DIR as string,
      absolute: true,
    })) {
      using index = IndexDatabase.open(file);
      expect([0, paths.length]).toContain(index.view.count());
    }
    const server = await cli.serve(["--cache", `${host}/index-killed`, "--upstream", ""], { env });
    expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
    await downloadAll(server, paths, nix);
    expect(server.log()).toBe("");
    expect(await server.stop()).toBe(0);
  };

  /** Serves, asks for one more refresh, and ends it. Answers its exit code. */
  const run = async (host: string, options: RunOptions, started = (_: number) => {}): Promise<number> => {
    let server: CliServer;
    try {
      const args = ["--cache", `${host}/index-killed`, "--upstream", "", "--index-ttl", "86400"];
      server = await cli.serve(args, options);
    } catch (error) {
      expect(String(error)).toContain(`status ${KILLED}`);
      return KILLED;
    }
    started(server.pid);
    await server.get("/_refresh", { method: "POST" }).catch(() => {});
    return server.stop();
  };

  test(
    `at ${POINTS} changes of its files`,
    async () => {
      const random = choices("index killed");
      const counted = cli.path("count");
      const env = { ...(await freshIndex()), KILL_COUNT_FILE: counted };
      expect(await run(registry.host, { env, program: PROGRAM })).toBe(0);
      const total = Number(await readFile(counted, "utf8"));
      console.log(`changes of files until the index is loaded: ${total}`);
      for (let i = 0; i < POINTS; i++) {
        const KILL_POINT = String(1 + random.below(total));
        const KILL_WHEN = random.random() < 0.5 ? "before" : "after";
        const index = await freshIndex();
        const code = await run(registry.host, { env: { ...index, KILL_POINT, KILL_WHEN }, program: PROGRAM });
        expect({ KILL_POINT, code }).toEqual({ KILL_POINT, code: KILLED });
        await startsClean(registry.host, index);
      }
    },
    TIMEOUT,
  );

  test(
    "at each of its requests, in the middle of the transaction",
    async () => {
      const proxy = cleanup.add(await startFaultProxy({ registry: registry.host }));
      expect(await run(proxy.host, { env: await freshIndex() })).toBe(0);
      const total = proxy.log.length;
      expect(total).toBeGreaterThan(3);
      for (let point = 1; point <= total; point++) {
        const index = await freshIndex();
        const from = proxy.log.length;
        const pid = Promise.withResolvers<number>();
        proxy.before = async ({ number }) => {
          if (number - from === point) process.kill(await pid.promise, "SIGKILL");
        };
        const code = await run(proxy.host, { env: index }, pid.resolve);
        expect({ point, code }).toEqual({ point, code: KILLED });
        proxy.before = () => undefined;
        await startsClean(proxy.host, index);
      }
    },
    TIMEOUT,
  );
});

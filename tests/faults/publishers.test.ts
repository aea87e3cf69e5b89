/**
 * Many publishers at once: 16 processes, each a machine of its own, publish overlapping closures to one cache at
 * the same moment. In the end every path of every one of them is served, also of one that was killed between its
 * segment and the root, and of one whose clock is an hour off.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { ROOT } from "../../scripts/process.ts";
import { auditCache } from "../support/audit.ts";
import { type Cli, type CliRun, openCli, type Variables } from "../support/cli.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { downloadAll } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, type TestNix } from "../support/nix.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { type Choices, choices } from "../support/seed-choices.ts";
import { storeVariables } from "../support/substitute.ts";

const PUBLISHERS = 16;
/** Twenty in all; those on a registry take longer. */
const ROUNDS = { registry: 8, layout: 12 };
/** Milliseconds; a round takes 2 to 5 s on two idle cores. */
const TIMEOUT = 400_000;
const PATHS = 60;
const MAIN = join(ROOT, "src", "main.ts");
const KILL_POINTS = join(ROOT, "tests", "support", "kill-points.ts");
const CLOCK = join(ROOT, "tests", "support", "clock.ts");
const HOUR_MS = 3_600_000;

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

describeWith(["nix", "registry"], "many publishers at once", () => {
  let cli: Cli;
  let nix: TestNix;
  let registry: TestRegistry;
  let proxy: FaultProxy;
  let paths: readonly string[];

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    proxy = cleanup.add(await startFaultProxy({ registry: registry.host }));
    paths = (await buildClosure(nix, { paths: PATHS, seed: 16 })).paths;
  });

  /** A machine that publishes these paths: its own local index and temporary folder. */
  const machine = async (
    cache: string,
    folder: string,
    own: readonly string[],
    preload?: { readonly file: string; readonly env: Variables },
  ): Promise<CliRun> => {
    const home = await mkdtemp(join(folder, "machine-"));
    const env = {
      ...storeVariables(nix),
      NIXCACHE_INDEX_DIR: join(home, "index"),
      TMPDIR: home,
      ...preload?.env,
    };
    const program =
      preload === undefined ? {} : { program: [process.execPath, "--preload", preload.file, MAIN] };
    return cli.start(["publish", ...own, "--cache", cache, "--upstream", ""], { env, ...program });
  };

  const withClock = (skewMs: number) => ({ file: CLOCK, env: { CLOCK_SKEW_MS: String(skewMs) } });

  const closureOf = async (own: readonly string[]): Promise<string[]> =>
    (await nix.run("nix-store", ["--query", "--requisites", ...own])).trim().split("\n");

  /**
   * Publishes at once, one of them by `victim` and two with clocks an hour apart, and checks what is served
   * afterwards. `there` has been published before.
   */
  const round = async (
    cache: string,
    random: Choices,
    there: readonly string[],
    victim: (own: readonly string[], folder: string) => Promise<CliRun>,
  ): Promise<void> => {
    const folder = await mkdtemp(cli.path("tmp", "round-"));
    // Nothing but what is there would be no publish, and nobody to kill.
    const some = (): string[] => {
      const own = random.pick(paths, 1 + random.below(3));
      return own.join() === there.join() ? some() : own;
    };
    const wanted = Array.from({ length: PUBLISHERS }, some);
    const [killed, slow, fast] = random.pick([...wanted.keys()], 3);
    const runs = await Promise.all(
      wanted.map((own, i) => {
        if (i === killed) return victim(own, folder);
        const skew = i === slow ? -HOUR_MS / 2 : i === fast ? HOUR_MS / 2 : undefined;
        return machine(cache, folder, own, skew === undefined ? undefined : withClock(skew));
      }),
    );
    const results = await Promise.all(runs.map(({ result }) => result));
    for (const [i, { code, stderr }] of results.entries()) {
      expect({ i, code, stderr }).toMatchObject({ code: i === killed ? 137 : 0 });
    }
    const expected = [...new Set(await closureOf([...there, ...wanted.flat()]))].sort();
    expect(await auditCache(cache)).toEqual(expected);

    const env = { NIXCACHE_INDEX_DIR: join(folder, "server") };
    const server = await cli.serve(["--cache", cache, "--upstream", ""], { env });
    expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
    await downloadAll(server, expected, nix);
    await server.stop();
    await rm(folder, { recursive: true });
  };

  describe("on a registry", () => {
    test(
      `defect 2: ${ROUNDS.registry} rounds, one publisher of each killed between its segment and the root`,
      async () => {
        const random = choices("publishers on a registry");
        for (let i = 0; i < ROUNDS.registry; i++) {
          const name = `publishers/round-${i}`;
          await round(`${registry.host}/${name}`, random, [], async (own, folder) => {
            const run = await machine(`${proxy.host}/${name}`, folder, own);
            proxy.after = async ({ method, path, status }) => {
              if (method !== "PUT" || !path.includes("/manifests/seg-")) return;
              expect(status).toBe(201);
              run.kill();
              await run.result;
            };
            return run;
          });
        }
      },
      TIMEOUT,
    );
  });

  describe("on a layout", () => {
    test(
      `defect 2: ${ROUNDS.layout} rounds, one publisher of each killed between its segment and the root`,
      async () => {
        const random = choices("publishers on a layout");
        for (let i = 0; i < ROUNDS.layout; i++) {
          const cache = cli.path(`layout-${i}`);
          // With a folder that is there, the first new index.json of a publisher is its commit.
          const there = random.pick(paths, 1);
          const first = await machine(cache, cli.path("tmp"), there);
          expect(await first.result).toMatchObject({ code: 0 });
          const env = { KILL_POINT: "1", KILL_WHEN: "after", KILL_ON: "rename:index\\.json$" };
          await round(cache, random, there, (own, folder) =>
            machine(cache, folder, own, { file: KILL_POINTS, env }),
          );
        }
      },
      TIMEOUT,
    );
  });
});

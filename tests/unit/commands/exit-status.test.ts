/** What `verify` and a watched command end with: scripts go by it. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { publish } from "../../../src/commands/publish.ts";
import { type Published, tell } from "../../../src/commands/publish-report.ts";
import { verify } from "../../../src/commands/verify.ts";
import { realHost } from "../../../src/context.ts";
import { EXIT_CODES, NixcacheError } from "../../../src/errors.ts";
import { openLayout } from "../../../src/oci/layout.ts";
import { parseReference } from "../../../src/oci/reference.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { runTheirCommand } from "../../../src/watch/command.ts";
import { runInProcess } from "../../support/command-context.ts";
import { createNixDatabase } from "../../support/nix-database.ts";
import { commitNames, party, testEntry } from "../../support/protocol.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";

let folder: TemporaryFolder;
beforeEach(() => {
  folder = temporaryFolder("commands");
});
afterEach(() => folder[Symbol.dispose]());

const at = (...names: string[]) => join(folder.path, ...names);

describe("verify ends with", () => {
  async function cache(): Promise<string> {
    using machine = party(openLayout(at("cache"), { host: realHost }));
    await commitNames(machine, ["a", "b"]);
    await fold(machine);
    return at("cache");
  }

  const blobOf = (name: string) =>
    at("cache", "blobs", "sha256", testEntry(name).blob.digest.slice("sha256:".length));

  const run = (...args: string[]) =>
    runInProcess(verify, ["--cache", at("cache"), "--upstream", "", ...args], {
      NIXCACHE_INDEX_DIR: at("index"),
      TMPDIR: folder.path,
    });

  test("0 for a cache that is clean, and says so", async () => {
    await cache();
    const { exitCode, logged, printed } = await run("--json");
    expect([exitCode, JSON.parse(printed[0] ?? "").clean]).toEqual([0, true]);
    expect(logged.at(-1)).toMatch(/^success: .* is clean/);
  });

  test("0 for what only costs time", async () => {
    using machine = party(openLayout(at("cache"), { host: realHost }));
    await commitNames(machine, ["a"]);
    const { exitCode, logged, printed } = await run("--json");
    expect([exitCode, JSON.parse(printed[0] ?? "").clean]).toEqual([0, true]);
    expect(logged.filter((line) => line.startsWith("warn"))).toHaveLength(1);
  });

  test("its own status for what is damaged, also when it repairs that, and 0 the next time", async () => {
    await cache();
    rmSync(blobOf("a"));
    for (const args of [[], ["--repair"]]) {
      const { exitCode, printed } = await run("--json", ...args);
      expect([args, exitCode, JSON.parse(printed[0] ?? "").clean]).toEqual([args, EXIT_CODES.damaged, false]);
    }
    expect((await run()).exitCode).toBe(0);
  });

  test("another one for a cache that cannot be looked at: that is not a clean one", async () => {
    await cache();
    writeFileSync(at("cache", "index.json"), "nonsense");
    expect(await run()).toMatchObject({ exitCode: EXIT_CODES.corrupt, printed: [] });
  });
});

describe("publish --watch ends with", () => {
  const BUN = process.execPath;

  /** A store in which nothing is built. */
  const run = (...argv: string[]) => {
    mkdirSync(at("nix/var/nix/db"), { recursive: true });
    createNixDatabase(at("nix/var/nix/db/db.sqlite")).close();
    const env = { NIX_REMOTE: folder.path, NIXCACHE_INDEX_DIR: at("index"), XDG_STATE_HOME: at("state") };
    const args = ["--watch", "--cache", at("cache"), "--upstream", "", "--", ...argv];
    return runInProcess(publish, args, { ...env, TMPDIR: folder.path, HOME: folder.path });
  };

  test.each([0, 1, 7, 255])("the command's own status: %d", async (status) => {
    expect((await run(BUN, "-e", `process.exit(${status})`)).exitCode).toBe(status);
  });

  test("the status of usage for a command that cannot be started", async () => {
    const { exitCode, error } = await run(at("nowhere"));
    expect([exitCode, error]).toEqual([EXIT_CODES.usage, expect.any(NixcacheError)]);
  });

  test("128 and the signal's number for one that a signal has ended", async () => {
    const signal = new AbortController().signal;
    const kill = "process.kill(process.pid, 'SIGKILL'); setInterval(() => {}, 1000)";
    expect(await runTheirCommand([BUN, "-e", kill], { env: {}, signal })).toBe(128 + 9);
  });

  test("128 and 15 for one that does not listen otherwise, once we are stopped", async () => {
    const stop = new AbortController();
    const running = runTheirCommand([BUN, "-e", "setInterval(() => {}, 1000)"], {
      env: {},
      signal: stop.signal,
    });
    stop.abort();
    expect(await running).toBe(128 + 15);
  });
});

describe("the last word of a publish", () => {
  const RESULT = {
    generation: null,
    paths: { closure: 1, upstream: 0, restated: 0, uploaded: 0 },
    bytes: { nar: 0, sent: 0 },
    newPaths: [],
    leftOut: [],
  } satisfies Published["result"];
  const LEFT_OUT = { ...RESULT, leftOut: [{ path: "/nix/store/x", reason: "why" }] };
  const row = (status: "failed" | "built") =>
    ({ attribute: "a", system: "s", status, reason: "why" }) as never;

  const exitCodeOf = (published: Partial<Published>): number => {
    let code = 0;
    const log = { info() {}, success() {}, warn() {}, error() {} };
    const context = { env: {}, log, print() {}, setExitCode: (given: number) => (code = given) };
    const holdings = { cacheName: "cache", paths: 1, generations: 1 };
    const reference = parseReference("registry.example/cache");
    const run = { key: undefined, dryRun: false, json: false, elapsedMs: 0, reference };
    tell({ result: RESULT, holdings, ...published }, run, context as never);
    return code;
  };

  test.each<[string, Partial<Published>, number]>([
    ["all went well", {}, 0],
    ["paths were left out", { result: LEFT_OUT }, EXIT_CODES.incomplete],
    ["an output failed", { rows: [row("failed")] }, EXIT_CODES.build],
    [
      "an output failed, and paths were left out",
      { rows: [row("failed")], result: LEFT_OUT },
      EXIT_CODES.incomplete,
    ],
    ["the command ended well", { exitCode: 0 }, 0],
    [
      "the command ended well, and paths were left out",
      { exitCode: 0, result: LEFT_OUT },
      EXIT_CODES.incomplete,
    ],
    ["the command failed", { exitCode: 3 }, 3],
    ["the command failed, and paths were left out", { exitCode: 3, result: LEFT_OUT }, 3],
    ["the command failed, and nothing was published", { exitCode: 3, result: undefined }, 3],
  ])("%s", (_, published, expected) => {
    expect(exitCodeOf(published)).toBe(expected);
  });
});

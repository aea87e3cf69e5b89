/**
 * What becomes of a build of the real Nix while something behind `nixcache serve` is broken, or serve itself: with and
 * without `fallback`, with and without a second substituter. The table in docs/serving.md is what this measures, with
 * each version of Nix: `bun run test:nix-versions tests/e2e/outages.test.ts`.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { registryBlob, registryBlobs } from "../support/cache-files.ts";
import { type Cli, type CliServer, openCli } from "../support/cli.ts";
import { lines } from "../support/derivation.ts";
import { hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { shellDerivation, type TestNix } from "../support/nix.ts";
import { type OutageGate, startOutageGate } from "../support/outage-gate.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { storeVariables } from "../support/substitute.ts";

const MIB = 1024 ** 2;

/** A build that hangs is ended after so long, and has failed. Milliseconds. */
const MOST_MS = 100_000;

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let registry: TestRegistry;
let version: number;
/** A file with a derivation whose output is large, and cannot be compressed. */
let expression: string;
let path: string;
/** A file with several derivations, for all of which Nix asks at once, as in most builds. */
let several: string;
/** The URL of a cache that Nix has beside ours. */
let second: string;
/** A folder with the path, for upstreams. */
let folder: string;

/** Where the output came from, or that the build has failed. */
type Outcome = "ours" | "second" | "built" | "fails";

/** Without and with a second substituter. */
interface Outcomes {
  readonly alone: Outcome;
  readonly second: Outcome;
}

interface Way {
  readonly hasSecond: boolean;
  readonly fallback: boolean;
}

const WAYS: readonly Way[] = [
  { hasSecond: false, fallback: false },
  { hasSecond: false, fallback: true },
  { hasSecond: true, fallback: false },
  { hasSecond: true, fallback: true },
];

const serveFolder = (root: string) => {
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch({ url }) {
      const file = Bun.file(join(root, new URL(url).pathname));
      return (await file.exists()) ? new Response(file) : new Response("absent", { status: 404 });
    },
  });
  cleanup.add({ close: () => server.stop(true) });
  return `127.0.0.1:${server.port}`;
};

/** One Nix with an empty store and an empty memory, and what it is told by arguments. */
async function machine(): Promise<Record<string, string>> {
  const root = await nix.emptyStore();
  return { ...nix.env, NIX_REMOTE: root, XDG_CACHE_HOME: `${root}-cache` };
}

async function build(
  url: string,
  { hasSecond, fallback }: Way,
  env: Record<string, string>,
  what = expression,
): Promise<Outcome> {
  const substituters = [url, ...(hasSecond ? [`${second}?priority=50`] : [])].join(" ");
  const options = { substituters, "require-sigs": "false", fallback: String(fallback) };
  const args = Object.entries(options).flatMap(([name, value]) => ["--option", name, value]);
  const child = Bun.spawn(["nix-build", "--no-out-link", ...args, what], {
    env,
    cwd: nix.folder,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: MOST_MS,
    killSignal: "SIGKILL",
  });
  const [stderr, stdout] = await Promise.all([child.stderr.text(), child.stdout.text(), child.exited]);
  if (child.exitCode !== 0) return "fails";
  if (what === expression) expect(stdout.trim()).toBe(path);
  if (stderr.includes("building '/nix/store/")) return "built";
  const sources = [...stderr.matchAll(/copying path '[^']*' from '([^'?]*)/g)].map((found) => found[1]);
  return sources.at(-1) === second ? "second" : "ours";
}

interface Scene {
  readonly server: CliServer;
  readonly gate: OutageGate;
}

let scenes = 0;

/** Serve with the registry, or an upstream, behind a gate that is open; it has read what there is. */
async function openScene(kind: "registry" | "upstream"): Promise<Scene> {
  const gate = cleanup.add(await startOutageGate(kind === "registry" ? registry.host : serveFolder(folder)));
  const args =
    kind === "registry"
      ? ["--cache", `${gate.host}/x`, "--upstream", ""]
      : ["--cache", cli.path("nothing"), "--upstream", `http://${gate.host}`];
  const env = { NIXCACHE_INDEX_DIR: cli.path(`index-${++scenes}`), NIXCACHE_CONNECT_TIMEOUT: "2s" };
  const server = await cli.serve([...args, "--log-level", "access"], { env });
  expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
  expect((await server.get(`/${hashPart(path)}.narinfo`)).status).toBe(200);
  return { server, gate };
}

/** Each way of building, in a scene of its own. @param prepare brings the outage, or arms it */
async function outcomes(
  kind: "registry" | "upstream",
  prepare: (scene: Scene) => Promise<unknown> | unknown,
): Promise<{ found: Outcome[]; logs: string[] }> {
  const found: Outcome[] = [];
  const logs: string[] = [];
  // Two at a time: a machine of CI has two processors.
  for (let first = 0; first < WAYS.length; first += 2) {
    const pair = WAYS.slice(first, first + 2).map(async (way) => {
      const scene = await openScene(kind);
      await prepare(scene);
      const outcome = await build(scene.server.url, way, await machine());
      await scene.server.stop();
      await scene.gate.close();
      return { outcome, log: scene.server.log() };
    });
    for (const { outcome, log } of await Promise.all(pair)) {
      found.push(outcome);
      logs.push(log);
    }
  }
  return { found, logs };
}

/** In the order of the ways. */
const everywhere = ({ alone, second: beside }: Outcomes): Outcome[] => [alone, alone, beside, beside];

const GOES_ON: Outcomes = { alone: "built", second: "second" };
const COMES: Outcomes = { alone: "ours", second: "ours" };

/** Statuses of the answers to requests for NARs. */
const narStatuses = (log: string) =>
  [...log.matchAll(/GET \/(?:nar|from)\/\S+ (\d{3}) /g)].map((found) => Number(found[1]));

const armed =
  (bytes: number) =>
  ({ gate }: Scene) =>
    gate.arm({ bytes });

/** It is back four seconds later. */
const forFourSeconds = ({ gate }: Scene) =>
  gate.arm({ bytes: 5 * MIB }, () => void setTimeout(() => void gate.end(), 4_000));

describeWith(["nix", "registry"], "a build while", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    const [, minor = "0"] = /(\d+)\.(\d+)/.exec(await nix.run("nix", ["--version"]))?.slice(1) ?? [];
    version = Number(minor);
    await writeRandomFile(join(nix.folder, "data"), 12 * MIB, 3);
    expression = join(nix.folder, "outage.nix");
    await Bun.write(
      expression,
      `derivation {
        name = "large"; system = builtins.currentSystem; builder = "/bin/sh"; data = ./data;
        args = [ "-e" "-c" "/bin/cat $data > $out" ];
      }`,
    );
    several = join(nix.folder, "several.nix");
    const names = ["a", "b", "c"].map((name) => shellDerivation(name, `echo ${name} > $out`));
    await Bun.write(several, `[ ${names.map((text) => `(${text})`).join(" ")} ]`);
    const small = lines(await nix.run("nix-build", ["--no-out-link", several]));
    path = (await nix.run("nix-build", ["--no-out-link", expression])).trim();
    folder = cli.path("upstream");
    await mkdir(folder);
    await nix.run("nix", ["copy", "--to", `file://${folder}?compression=none`, path, ...small]);
    second = `http://${serveFolder(folder)}`;
    const args = ["--cache", `${registry.host}/x`, "--upstream", "", "--part-size", "4M"];
    const published = await cli.run(["publish", path, ...args], { env: storeVariables(nix) });
    expect(published).toMatchObject({ code: 0 });
  }, 120_000);

  test("nothing is broken: it comes from us", async () => {
    for (const kind of ["registry", "upstream"] as const) {
      expect((await outcomes(kind, () => {})).found).toEqual(everywhere(COMES));
    }
  }, 120_000);

  test("the registry is gone before a NAR: it goes on", async () => {
    const { found, logs } = await outcomes("registry", ({ gate }) => gate.begin("gone"));
    expect(found).toEqual(everywhere(GOES_ON));
    for (const log of logs) expect(narStatuses(log)).toEqual([404]);
  }, 120_000);

  test("the registry accepts and never answers: it goes on, after one time-out", async () => {
    const { found, logs } = await outcomes("registry", ({ gate }) => gate.begin("hangs"));
    expect(found).toEqual(everywhere(GOES_ON));
    for (const log of logs) expect(narStatuses(log)).toEqual([404]);
  }, 120_000);

  test("the registry goes at the beginning of a NAR: it goes on", async () => {
    const { found, logs } = await outcomes("registry", ({ gate }) =>
      gate.arm({ request: /^GET \/v2\/x\/blobs\// }),
    );
    expect(found).toEqual(everywhere(GOES_ON));
    for (const log of logs) expect(narStatuses(log)).toEqual([404]);
  }, 120_000);

  test("the registry goes in the middle of a NAR, for good: Nix tries to resume, and goes on", async () => {
    const { found, logs } = await outcomes("registry", armed(5 * MIB));
    expect(found).toEqual(everywhere(GOES_ON));
    for (const log of logs) expect(narStatuses(log)).toEqual([200, 503, 503, 503, 404]);
  }, 240_000);

  test("the registry goes in the middle of a NAR, for four seconds: it comes from us", async () => {
    const { found, logs } = await outcomes("registry", forFourSeconds);
    expect(found).toEqual(everywhere(COMES));
    for (const log of logs) expect(narStatuses(log).at(-1)).toBe(206);
  }, 240_000);

  test("a blob is lost: it goes on", async () => {
    const lost = cleanup.add(await startRegistry());
    const args = ["--cache", `${lost.host}/x`, "--upstream", "", "--part-size", "4M"];
    expect(await cli.run(["publish", path, ...args], { env: storeVariables(nix) })).toMatchObject({
      code: 0,
    });
    // The last part: what comes before it is sent. Looked for once, as a folder cannot be read while its files go.
    const parts = [...(await registryBlobs(lost.folder))].filter(([, size]) => size > MIB);
    const [digest = ""] = parts.sort(([, a], [, b]) => a - b)[0] ?? [];
    const whole = registry;
    registry = lost;
    try {
      const { found } = await outcomes("registry", async ({ server }) => {
        await Bun.file(registryBlob(lost.folder, digest))
          .delete()
          .catch(() => {});
        expect((await server.get("/_status")).status).toBe(200);
      });
      expect(found).toEqual(everywhere(GOES_ON));
    } finally {
      registry = whole;
    }
  }, 120_000);

  test("an upstream is gone before a NAR: it goes on", async () => {
    const { found } = await outcomes("upstream", ({ gate }) => gate.begin("gone"));
    expect(found).toEqual(everywhere(GOES_ON));
  }, 120_000);

  test("an upstream goes at the beginning of a NAR: it goes on", async () => {
    const { found, logs } = await outcomes("upstream", ({ gate }) => gate.arm({ request: /^GET \/nar\// }));
    expect(found).toEqual(everywhere(GOES_ON));
    for (const log of logs) expect(narStatuses(log)).toEqual([404]);
  }, 120_000);

  test("an upstream goes in the middle of a NAR, for good: Nix tries to resume, and goes on", async () => {
    const { found, logs } = await outcomes("upstream", armed(5 * MIB));
    expect(found).toEqual(everywhere(GOES_ON));
    for (const log of logs) expect(narStatuses(log)).toEqual([200, 503, 503, 503, 404]);
  }, 240_000);

  test("an upstream goes in the middle of a NAR, for four seconds: it comes from us", async () => {
    const { found } = await outcomes("upstream", forFourSeconds);
    expect(found).toEqual(everywhere(COMES));
  }, 240_000);

  test("serve is gone, and Nix has never asked it: it goes on", async () => {
    const { found } = await outcomes("registry", ({ server }) => server.stop());
    expect(found).toEqual(everywhere(GOES_ON));
  }, 120_000);

  test("serve is gone, and Nix remembers it: it needs fallback, and a newer Nix", async () => {
    const found: Outcome[] = [];
    for (const way of WAYS) {
      const { server, gate } = await openScene("registry");
      const env = await machine();
      await nix.run("nix", ["path-info", "--store", server.url, path], { env });
      await server.stop();
      await gate.close();
      found.push(await build(server.url, way, env, several));
    }
    // Without fallback Nix from 2.32 on takes from another substituter what that has, half a minute later.
    const beside = version >= 32 ? "second" : "fails";
    const withFallback = version >= 26 ? ["built", "second"] : ["fails", "fails"];
    expect(found).toEqual(["fails", withFallback[0], beside, withFallback[1]] as Outcome[]);
  }, 300_000);

  test("serve is gone, and Nix remembers it: the mend is to leave it out, or to start it", async () => {
    const { server, gate } = await openScene("registry");
    const env = await machine();
    await nix.run("nix", ["path-info", "--store", server.url, path], { env });
    await server.stop();
    await gate.close();
    expect(await build(second, { hasSecond: false, fallback: false }, env)).toBe("second");
  }, 120_000);
});

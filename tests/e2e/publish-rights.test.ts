/**
 * `nixcache publish` where the cache cannot be written to: found out before anything is built, told after hours of
 * building, and no failure where it is expected.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Cli, type CliResult, openCli, type RunOptions } from "../support/cli.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { flakeText, type TestNix } from "../support/nix.ts";
import {
  DOUBLE_REPOSITORY,
  type RegistryDouble,
  type SeenRequest,
  startDouble,
} from "../support/registry-double.ts";
import { storeVariables } from "../support/substitute.ts";

const SYSTEM = `${process.arch === "arm64" ? "aarch64" : "x86_64"}-${process.platform}`;
const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let double: RegistryDouble;
let count = 0;

const error = (status: number, code: string) =>
  new Response(JSON.stringify({ errors: [{ code, message: "" }] }), { status });
const isUpload = ({ method, path }: SeenRequest) => method === "POST" && path.includes("/blobs/uploads/");

/** A flake with one output that is built anew and one that fails, and whether the first one was built. */
function project() {
  const folder = cli.path(`project-${++count}`);
  mkdirSync(folder);
  const name = `good-${count}`;
  const build = (name: string, script: string) => `sh "${name}" "${script}" { }`;
  const outputs = `packages.${SYSTEM} = {
    good = ${build(name, "echo good > $out")};
    bad = ${build(`bad-${count}`, "echo no compiler >&2; exit 3")};
  };`;
  writeFileSync(join(folder, "flake.nix"), flakeText(outputs));
  const isBuilt = () => {
    const store = nix.realPath("/nix/store");
    return existsSync(store) && readdirSync(store).some((entry) => entry.endsWith(`-${name}`));
  };
  return { folder, isBuilt };
}

const theCache = () => `${double.host}/${DOUBLE_REPOSITORY}`;

async function publish(cache: string, args: readonly string[], options: RunOptions = {}): Promise<CliResult> {
  const env = {
    ...storeVariables(nix),
    ...{ NIXCACHE_CACHE: cache, NIXCACHE_UPSTREAM: "" },
    ...{ NIXCACHE_RETRY_ATTEMPTS: "2", NIXCACHE_RETRY_WAIT: "1ms", NIXCACHE_RETRY_MAX_WAIT: "1ms" },
    ...options.env,
  };
  return await cli.run(["publish", ...args], { ...options, env });
}

const good = (folder: string, ...more: string[]) => [
  "--flake",
  folder,
  "--include",
  "packages.*.good",
  "--json",
  ...more,
];
const all = (folder: string, ...more: string[]) => ["--flake", folder, "--json", ...more];
const statusesIn = ({ stdout }: CliResult) =>
  JSON.parse(stdout).outputs.map(({ attribute, status }: Record<string, string>) => [
    attribute?.split(".").at(-1),
    status,
  ]);

/** As in a step of GitHub Actions. @param head whose repository a pull request comes from; none is a push */
function actions(head?: string) {
  const event = cli.path(`event-${++count}.json`);
  const of = (full_name: string) => ({ full_name });
  const request = head === undefined ? {} : { pull_request: { head: { repo: of(head) } } };
  writeFileSync(event, JSON.stringify({ ...request, repository: of("me/repo") }));
  const [summary, output] = [cli.path(`summary-${count}.md`), cli.path(`output-${count}`)];
  const env = {
    ...{ GITHUB_ACTIONS: "true", GITHUB_REPOSITORY: "me/repo", GITHUB_EVENT_PATH: event },
    GITHUB_EVENT_NAME: head === undefined ? "push" : "pull_request",
    ...{ GITHUB_STEP_SUMMARY: summary, GITHUB_OUTPUT: output },
  };
  return { env, summary: () => readFileSync(summary, "utf8"), output: () => readFileSync(output, "utf8") };
}

describeWith(["nix"], "where the cache", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    const started = startDouble();
    double = started;
    cleanup.add({ close: async () => started.close() });
    const auth = Buffer.from("somebody:ghp_secret").toString("base64");
    mkdirSync(cli.path("home", ".docker"));
    writeFileSync(
      cli.path("home", ".docker", "config.json"),
      JSON.stringify({ auths: { [double.host]: { auth } } }),
    );
  });

  /** Runs with what the registry answers to all that matches. */
  async function withFault<T>(fault: (request: SeenRequest) => Response | undefined, body: () => Promise<T>) {
    double.faults.push(fault);
    try {
      return await body();
    } finally {
      double.faults.splice(double.faults.indexOf(fault), 1);
    }
  }

  describe.each([
    ["denies writing", () => error(403, "DENIED"), "not allowed to write to it"],
    ["is read-only", () => error(405, "UNSUPPORTED"), "it takes no uploads"],
    ["does not exist, nor comes to", () => error(404, "NAME_UNKNOWN"), "got 404 (NAME_UNKNOWN)"],
  ] as const)("%s", (_, answer, message) => {
    const refusing = (request: SeenRequest) => (isUpload(request) ? answer() : undefined);

    test.each(["", "--watch"])("nothing is built, with %p", async (watch) => {
      const { folder, isBuilt } = project();
      const result = await withFault(refusing, () =>
        publish(theCache(), good(folder, ...(watch ? [watch] : []))),
      );
      expect(result).toMatchObject({ code: 9, stdout: "" });
      expect(result.stderr).toContain(message);
      expect(result.stderr).toContain("nothing was built");
      expect(result.stderr).toContain("--read-only-ok");
      expect(isBuilt()).toBe(false);
    });

    test.each(["", "--watch"])("with --read-only-ok and %p it is built, and all is well", async (watch) => {
      const { folder, isBuilt } = project();
      const cache = theCache();
      const flags = ["--read-only-ok", ...(watch ? [watch] : [])];
      const result = await withFault(refusing, () => publish(cache, good(folder, ...flags)));
      expect(result).toMatchObject({ code: 0 });
      expect(isBuilt()).toBe(true);
      expect(JSON.parse(result.stdout)).toMatchObject({ cache, readOnly: true, generation: null });
      expect(statusesIn(result)).toEqual([["good", "built"]]);
      expect(result.stderr).toContain(message);
      expect(result.stderr).toContain("nothing is published");
    });

    test("a command is run, with its own exit status", async () => {
      const command = ["--watch", "--", "sh", "-c", "echo ran; exit 7"];
      const refused = await withFault(refusing, () => publish(theCache(), command));
      expect(refused).toMatchObject({ code: 9, stdout: "" });
      const ran = await withFault(refusing, () => publish(theCache(), ["--read-only-ok", ...command]));
      expect(ran).toMatchObject({ code: 7, stdout: "ran\n" });
    });

    test("paths are looked for, and not published", async () => {
      const path = await nix.build(`derivation { name = "p"; system = builtins.currentSystem;
        builder = "/bin/sh"; args = [ "-c" "echo p > $out" ]; }`);
      const refused = await withFault(refusing, () => publish(theCache(), [path]));
      expect(refused.code).not.toBe(0);
      const cache = theCache();
      const well = await withFault(refusing, () => publish(cache, [path, "--read-only-ok", "--json"]));
      expect(well.code).toBe(0);
      expect(JSON.parse(well.stdout)).toMatchObject({ cache, readOnly: true, generation: null });
    });
  });

  test("cannot be written to by a pull request of a fork, its outputs are built, and what failed is told", async () => {
    const refusing = (request: SeenRequest) => (isUpload(request) ? error(403, "DENIED") : undefined);
    const { folder } = project();
    const [own, fork] = [actions("me/repo"), actions("you/repo")];
    const refused = await withFault(refusing, () => publish(theCache(), good(folder), { env: own.env }));
    expect(refused.code).toBe(9);
    const result = await withFault(refusing, () => publish(theCache(), good(folder), { env: fork.env }));
    expect(result.code).toBe(0);
    expect(result.stderr).toContain("a pull request from a fork");
    expect(fork.summary()).toMatch(/^## Not published to .*\[!NOTE\].*### Outputs.*good/s);
    expect(fork.output()).toMatch(/generation<<.*\n\n.*failed<<.*\n0\n/s);

    const failing = await withFault(refusing, () => publish(theCache(), all(folder), { env: fork.env }));
    expect(failing.code).toBe(15);
    expect(statusesIn(failing)).toContainEqual(["bad", "failed"]);
    expect(fork.summary()).toContain("no compiler");
  });

  test("takes the probe, and refuses in the end: what was built is told all the same", async () => {
    const { folder, isBuilt } = project();
    const step = actions();
    const refusing = ({ method }: SeenRequest) =>
      method === "PUT" && isBuilt() ? error(403, "DENIED") : undefined;
    const result = await withFault(refusing, () => publish(theCache(), all(folder), { env: step.env }));
    expect(result.code).toBe(9);
    expect(statusesIn(result)).toEqual([
      ["bad", "failed"],
      ["good", "built"],
    ]);
    expect(JSON.parse(result.stdout)).toMatchObject({ generation: null, error: { code: "denied" } });
    expect(step.summary()).toMatch(/^## Not published to .*\[!CAUTION\].*not allowed to write.*### Outputs/s);
    expect(step.output()).toMatch(/failed<<.*\n1\n/);
    expect(result.stderr + result.stdout).toContain("::error");

    const plain = await withFault(refusing, () => publish(theCache(), all(folder)));
    expect(plain.code).toBe(9);
    expect(plain.stderr).toMatch(/good .*\/nix\/store.*not allowed to write to it/s);
  });

  test("is down, it is built all the same, and told", async () => {
    const { folder, isBuilt } = project();
    const down = () => new Response("", { status: 503 });
    const result = await withFault(down, () => publish(theCache(), good(folder)));
    expect(result.code).toBe(8);
    expect(result.stderr).toMatch(/whether .* can be written to is not known: .*got 503.*; going on/);
    expect(isBuilt()).toBe(true);
    expect(statusesIn(result)).toEqual([["good", "built"]]);
  });

  test("is a folder that holds something else, or is a file, nothing is built", async () => {
    const { folder, isBuilt } = project();
    for (const cache of [folder, join(folder, "flake.nix")]) {
      const result = await publish(cache, good(folder));
      expect(result.code).toBe(10);
      expect(isBuilt()).toBe(false);
    }
    expect((await publish(folder, good(folder, "--read-only-ok"))).code).toBe(0);
  });

  test("is only asked by a dry run, nothing is begun there", async () => {
    const { folder } = project();
    const cache = theCache();
    double.requests.length = 0;
    expect((await publish(cache, good(folder, "--dry-run"))).code).toBe(0);
    expect(double.requests.filter(({ method }) => !["GET", "HEAD"].includes(method))).toEqual([]);
  });

  test("can be written to, one upload is begun and given up before the build", async () => {
    const { folder } = project();
    double.requests.length = 0;
    expect((await publish(theCache(), good(folder))).code).toBe(0);
    // The first time without a token.
    const writes = double.requests.filter(({ method }) => !["GET", "HEAD"].includes(method));
    const shown = writes.slice(0, 3).map(({ method, path }) => `${method} ${path.replace(/[^/]*$/, "")}`);
    expect(shown).toEqual([
      "POST /v2/owner/repo/nix-cache/blobs/uploads/",
      "POST /v2/owner/repo/nix-cache/blobs/uploads/",
      "DELETE /v2/owner/repo/nix-cache/blobs/upload/",
    ]);
  });

  test.each([
    ["serve --writable", (cache: string) => ["serve", "--port", "0", "--writable", "--cache", cache]],
    ["gc", (cache: string) => ["gc", "--cache", cache]],
    ["verify --repair", (cache: string) => ["verify", "--repair", "--cache", cache]],
  ])("denies writing, %s says so at once", async (_, args) => {
    const refusing = (request: SeenRequest) => (isUpload(request) ? error(403, "DENIED") : undefined);
    double.requests.length = 0;
    const result = await withFault(refusing, () => cli.run(args(theCache())));
    expect({ code: result.code, stderr: result.stderr }).toEqual({
      code: 9,
      stderr: expect.stringContaining("not allowed to write to it"),
    });
    expect(result.stdout).not.toContain("listening");
    expect(double.requests.map(({ method }) => method).filter((method) => method !== "GET")).toEqual([
      "POST",
    ]);
  });
});

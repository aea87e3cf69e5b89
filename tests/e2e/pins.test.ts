/** Pins, and gc with a flake's current outputs, as a person or a workflow runs them: real Nix, real registry. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { symlink } from "node:fs/promises";
import { join } from "node:path";
import type { PublishRecord } from "../../src/cache/record.ts";
import { refresh } from "../../src/protocol/refresh.ts";
import { auditCache, openCacheStore } from "../support/audit.ts";
import { type Cli, type CliResult, openCli, type RunOptions } from "../support/cli.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { flakeText, type TestNix } from "../support/nix.ts";
import { party, TestHost } from "../support/protocol.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { openClient, storeVariables } from "../support/substitute.ts";

const HOUR = 3_600_000;
const SYSTEM = `${process.arch === "arm64" ? "aarch64" : "x86_64"}-${process.platform}`;
const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let registry: TestRegistry;
let count = 0;

const newCache = () => `${registry.host}/pins-${++count}`;

/** `packages.SYSTEM.NAME` for each name: a derivation whose text is its value, and which refers to `base`. */
function packages(named: Readonly<Record<string, string>>): string {
  const all = Object.entries(named).map(
    ([name, text]) =>
      `${name} = sh "pin-${name}-${text}" "mkdir $out; echo \${base} ${text} > $out/file" { };`,
  );
  return `packages.${SYSTEM} = let base = sh "pin-base" "echo base > $out" { }; in { ${all.join("\n")} };`;
}

/** A checkout of a repository with `config/flake.nix` of these outputs. */
function project(outputs: string, folder = cli.path(`project-${++count}`)): string {
  mkdirSync(join(folder, "config"), { recursive: true });
  writeFileSync(join(folder, "config", "flake.nix"), flakeText(outputs));
  return folder;
}

async function checkout(folder: string, branch: string): Promise<void> {
  const git = (...args: string[]) => nix.run("git", ["-C", folder, ...args]);
  await git("init", "--quiet", "--initial-branch", branch);
  await git("remote", "add", "origin", "https://example.org/o/r.git");
  // Nix sees of a checkout what git knows.
  await git("add", "config");
}

/** @param hours by how much its clock is ahead */
function run(cache: string, args: readonly string[], options: RunOptions & { hours?: number } = {}) {
  const { hours = 0, ...rest } = options;
  const env = {
    ...storeVariables(nix),
    NIXCACHE_CACHE: cache,
    NIXCACHE_UPSTREAM: "",
    NIXCACHE_SIGNING_KEY_FILE: cli.path("s"),
    CLOCK_SKEW_MS: String(hours * HOUR),
    ...options.env,
  };
  return cli.run(args, { ...rest, env, ...(hours > 0 && { program: skewed() }) });
}

/** The sources with a clock that is off. */
function skewed(): string[] {
  const root = new URL("../../", import.meta.url).pathname;
  return [process.execPath, "--preload", `${root}tests/support/clock.ts`, `${root}src/main.ts`];
}

/** Fails with what it said when it does not end with `code`. */
async function jsonOf(run: Promise<CliResult>, code = 0) {
  const result = await run;
  if (result.code !== code) throw new Error(`status ${result.code}, expected ${code}:\n${result.stderr}`);
  return { ...JSON.parse(result.stdout), stderr: result.stderr };
}

async function records(cache: string): Promise<PublishRecord[]> {
  using reader = party(openCacheStore(cache), new TestHost(Date.now()));
  await refresh(reader, { list: true });
  return reader.database.view.generations().map(({ record }) => record);
}

const names = async (cache: string) =>
  (await auditCache(cache)).map((path) => path.replace(/^.{44}(?:pin-)?/, "")).sort();

/** What a gc decided, by source: rules, with an exclamation mark behind those that end something. */
const rules = ({ decisions }: { decisions: { rule: string; ends: boolean; source: string }[] }) =>
  decisions.map(({ rule, ends, source }) => `${source.replace(/.*\//, "")} ${rule}${ends ? "!" : ""}`);

describeWith(["nix", "registry"], "pins", () => {
  let cache: string;
  let cwd: string;
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    await cli.run(["keygen", "pins-1", cli.path("s"), cli.path("p")]);
    cache = newCache();
    cwd = project(packages({ app: "one", tool: "one" }));
    await checkout(cwd, "main");
    await jsonOf(run(cache, ["publish", "--json"], { cwd }));
  });

  test("a link and an output are pinned, listed, and outlive what they came from", async () => {
    const path = await nix.run("nix-build", ["--no-out-link", "-E", appExpression(cwd)]);
    await symlink(path.trim(), join(cwd, "result"));
    const linked = await jsonOf(
      run(cache, ["pin", "linked", "./result", "--json", "--keep-days", "60"], { cwd }),
    );
    expect(linked).toMatchObject({ cache, name: "linked", keepDays: 60, storePath: path.trim(), paths: 2 });
    const output = await run(cache, ["pin", "by-output", `packages.${SYSTEM}.app`], { cwd });
    expect(output.stderr).toContain(`pinned by-output to ${path.trim()} (2 paths)`);
    const again = await run(cache, ["pin", "by-output", `packages.${SYSTEM}.app`], { cwd });
    expect(again.stderr).toContain("is pinned to");

    const listed = await jsonOf(run(cache, ["pins", "--json"]));
    expect(listed.pins).toMatchObject([
      { name: "by-output", label: `packages.${SYSTEM}.app`, path: path.trim(), until: null, paths: 2 },
      { name: "linked", path: path.trim(), over: false, revisions: [{ path: path.trim() }] },
    ]);
    const text = await run(cache, ["pins"]);
    expect(text.stdout).toMatch(
      /^by-output {2}\/nix\/store\/\S+ {2}since \S+ {2}for ever +1 revision {2}[\d.]+ \w+$/m,
    );
    expect(text.stdout).toMatch(/^linked .* until \S+ /m);

    project(packages({ app: "two" }), cwd);
    await jsonOf(run(cache, ["publish", "--json"], { cwd }));
    const later = ["gc", "--retention-days", "0", "--json"];
    const first = await jsonOf(run(cache, later, { hours: 48 }));
    expect(rules(first).sort()).toEqual([
      "pin:by-output pin",
      "pin:linked pin",
      "r#main age!",
      "r#main newest",
    ]);
    await jsonOf(run(cache, later, { hours: 75 }));
    await registry.collectGarbage({ untagged: true });
    expect(await names(cache)).toEqual(["app-one", "app-two", "base"]);

    const server = await cli.serve(["--cache", cache, "--upstream", ""]);
    const client = await openClient(nix, (await Bun.file(cli.path("p")).text()).trim());
    await client.copy(server.url, [path.trim()]);
    await client.verify();
    await server.stop();
    const verified = await cli.run(["verify", "--cache", cache, "--upstream", "", "--deep"]);
    expect(verified).toMatchObject({
      code: 0,
      stderr: expect.not.stringContaining("without a known signature"),
    });
  });

  test("a pin ends with its days, or when it is unpinned, on whatever machine gc runs", async () => {
    const unpinned = await jsonOf(run(cache, ["unpin", "by-output", "--json"]));
    expect([unpinned.ended.length, unpinned.waiting.length]).toEqual([0, 2]);
    const { pins } = await jsonOf(run(cache, ["pins", "--json"]));
    expect(pins.map(({ name }: { name: string }) => name)).toEqual(["linked"]);
    const env = { NIXCACHE_INDEX_DIR: cli.path("another-machine") };
    const collected = await jsonOf(run(cache, ["gc", "--json"], { hours: 100, env }));
    expect(rules(collected).sort()).toEqual([
      "pin:by-output unpinned!",
      "pin:by-output unpinned!",
      "pin:linked pin",
      "r#main newest",
    ]);
    const over = await run(cache, ["gc"], { hours: 24 * 61, env });
    expect(over.stderr).toContain("the pin linked was for 60 days, until ");
    expect(await names(cache)).toEqual(["app-two", "base"]);
    expect((await run(cache, ["pins"])).stderr).toContain("has no pins");
  });

  test.each<[string, string[], number, RegExp]>([
    ["pin without a path", ["pin", "x"], 2, /pin takes a NAME and a PATH or OUTPUT/],
    ["pin of what the cache does not have", ["pin", "x", "a".repeat(32)], 17, /is not in the cache/],
    ["pin of an unknown output", ["pin", "x", "nothing"], 17, /no publish has an output "nothing"/],
    ["pin of a file that is not in the store", ["pin", "x", "./config"], 3, /names no path of the Nix store/],
    ["pin under a bad name", ["pin", "x y", "nothing"], 2, /as the name of a pin/],
    ["pin for no days", ["pin", "x", "nothing", "--keep-days", "0"], 2, /--keep-days/],
    ["pin of no revisions", ["pin", "x", "nothing", "--keep-revisions", "0"], 2, /--keep-revisions/],
    ["unpin of what is not pinned", ["unpin", "x"], 17, /there is no pin "x"/],
    ["unpin of nothing", ["unpin"], 2, /unpin takes the NAME/],
    ["pins with an argument", ["pins", "x"], 2, /unexpected argument/],
    [
      "outputs for gc without a flake",
      ["gc", "--outputs", "x"],
      2,
      /--outputs is for the flake that --roots-from/,
    ],
  ])("%s is an error", async (_, args, code, says) => {
    expect(await run(cache, args, { cwd })).toMatchObject({ code, stderr: expect.stringMatching(says) });
  });

  describe("gc --roots-from", () => {
    test("takes the outputs as they are now, and ends what they do not lead to", async () => {
      const cache = newCache();
      const cwd = project(packages({ app: "old", tool: "same" }));
      await checkout(cwd, "main");
      await jsonOf(run(cache, ["publish", "--json"], { cwd }));
      project(packages({ app: "new", tool: "same" }), cwd);
      await jsonOf(run(cache, ["publish", "--json"], { cwd }));
      // Reverted, and nobody has published since.
      project(packages({ app: "old", tool: "same" }), cwd);
      const args = ["gc", "--json", "--roots-from", "./config", "--retention-days", "0"];
      const dry = await jsonOf(run(cache, [...args, "--dry-run"], { cwd, hours: 48 }));
      expect(rules(dry)).toEqual(["r#main age!", "r#main age!", "r#main young"]);
      expect(dry.current).toMatchObject({ count: 2, lacking: [], unchanged: false });
      expect((await records(cache)).length).toBe(2);

      const real = await jsonOf(run(cache, args, { cwd, hours: 48 }));
      expect(rules(real)).toEqual(rules(dry));
      expect(await names(cache)).toEqual(["app-old", "base", "tool-same"]);
      const again = await jsonOf(run(cache, args, { cwd, hours: 49 }));
      expect(again.current).toMatchObject({ generation: null, unchanged: true });
      // What a publish of the same would say: it has nothing to add.
      const published = await jsonOf(run(cache, ["publish", "--json"], { cwd, hours: 50 }));
      expect(published).toMatchObject({ generation: null, paths: { uploaded: 0, restated: 3 } });
    });

    test("builds nothing: what the cache lacks is named, and nothing ends for it", async () => {
      const cache = newCache();
      const cwd = project(packages({ app: "there" }));
      await checkout(cwd, "main");
      await jsonOf(run(cache, ["publish", "--json"], { cwd }));
      project(`${packages({ app: "there", fresh: "never" })} devShells.${SYSTEM}.bad = throw "no"; `, cwd);
      const args = ["gc", "--json", "--roots-from", cwd.concat("/config"), "--retention-days", "0"];
      const report = await jsonOf(run(cache, args, { cwd, hours: 48 }));
      expect(report.current.lacking).toMatchObject([{ output: `packages.${SYSTEM}.fresh` }]);
      expect(report.stderr).toContain(`not in the cache: packages.${SYSTEM}.fresh (/nix/store/`);
      expect(report.stderr).toContain(`devShells.${SYSTEM}.bad cannot be evaluated`);
      expect(rules(report)).toEqual(["r#main newest", "r#main young"]);
      const [, recorded] = await records(cache);
      expect(recorded).toMatchObject({ partial: true, branch: "main", system: SYSTEM, entries: 2 });
      await expect(nix.run("nix", ["path-info", report.current.lacking[0].path])).rejects.toThrow(
        "not valid",
      );
    });

    test("of a folder without a flake is an error, and nothing is collected", async () => {
      const cache = newCache();
      const result = await run(cache, ["gc", "--roots-from", "./nowhere"], { cwd });
      expect(result).toMatchObject({ code: 3, stderr: expect.stringContaining("cannot evaluate") });
      expect(await openCacheStore(cache).listTags()).toEqual([]);
    });
  });
});

function appExpression(folder: string): string {
  return `((import ${folder}/config/flake.nix).outputs { self = null; }).packages.${SYSTEM}.app`;
}

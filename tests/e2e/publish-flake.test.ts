/** `nixcache publish` of what it builds itself: flakes, Nix files, and whatever a person names. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { PublishRecord } from "../../src/cache/record.ts";
import { nixString } from "../../src/nix/nix-string.ts";
import { refresh } from "../../src/protocol/refresh.ts";
import { readCommands } from "../support/actions-log.ts";
import { auditCache, openCacheStore } from "../support/audit.ts";
import { type Cli, type CliResult, openCli, type RunOptions } from "../support/cli.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { flakeText, shellDerivation, type TestNix } from "../support/nix.ts";
import { party, TestHost } from "../support/protocol.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { storeVariables } from "../support/substitute.ts";

const SYSTEM = `${process.arch === "arm64" ? "aarch64" : "x86_64"}-${process.platform}`;
const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let registry: TestRegistry;
let proxy: FaultProxy;
let count = 0;

const newCache = () => `${proxy.host}/cache-${++count}`;

/** A folder with `config/flake.nix` of these outputs. */
function project(outputs: string): string {
  const folder = cli.path(`project-${++count}`);
  mkdirSync(join(folder, "config"), { recursive: true });
  writeFileSync(join(folder, "config", "flake.nix"), flakeText(outputs));
  return folder;
}

async function publish(cache: string, args: readonly string[], options: RunOptions = {}): Promise<CliResult> {
  const env = {
    ...storeVariables(nix),
    NIXCACHE_CACHE: cache,
    NIXCACHE_UPSTREAM: "",
    NIXCACHE_SIGNING_KEY_FILE: cli.path("s"),
    ...options.env,
  };
  return await cli.run(["publish", ...args], { ...options, env });
}

/** Fails with what it said when it does not end with `code`. */
async function summaryOf(run: Promise<CliResult>, code = 0) {
  const result = await run;
  if (result.code !== code) throw new Error(`status ${result.code}, expected ${code}:\n${result.stderr}`);
  const summary = JSON.parse(result.stdout);
  const statuses = (summary.outputs ?? []).map(({ attribute, status }: Record<string, string>) => [
    attribute,
    status,
  ]);
  return { ...summary, statuses: Object.fromEntries(statuses), stderr: result.stderr };
}

/** The records of all generations, the oldest first. */
async function records(cache: string): Promise<PublishRecord[]> {
  using reader = party(openCacheStore(cache), new TestHost(Date.now()));
  await refresh(reader, { list: true });
  return reader.database.view.generations().map(({ record }) => record);
}

const names = async (cache: string) =>
  (await auditCache(cache)).map((path) => path.replace(/^.{44}/, "")).sort();
const writes = () => proxy.log.filter(({ method }) => !["GET", "HEAD"].includes(method));

const PACKAGES = (prefix: string) => `packages.${SYSTEM} = rec {
  one = sh "${prefix}-one" "mkdir $out; echo one > $out/file" { };
  two = sh "${prefix}-two" "ln -s \${one} $out" { };
};`;

describeWith(["nix", "registry"], "publish", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    proxy = cleanup.add(await startFaultProxy({ registry: registry.host }));
    await cli.run(["keygen", "flake-1", cli.path("s"), cli.path("p")]);
  });

  test("./config without being asked, what built although something failed, and substitutes the next time", async () => {
    const cache = newCache();
    const cwd = project(`${PACKAGES("default")}
      devShells.${SYSTEM} = { default = sh "default-shell" "echo \${self.packages.${SYSTEM}.one} > $out" { };
        bad = sh "default-bad" "echo no compiler >&2; exit 3" { };
        needy = sh "default-needy" "ln -s \${self.devShells.${SYSTEM}.bad} $out" { };
        broken = throw "not today"; };`);
    const result = await publish(cache, [], { cwd });
    expect(result.code).toBe(15);
    // Nix's own log, the table, and what it comes to.
    expect(result.stderr).toContain("default-bad> no compiler");
    expect(result.stderr).toMatch(/^failed {3}devShells.*\.bad +builder failed with exit code 3$/m);
    expect(result.stderr).toMatch(/^blocked {2}devShells.*\.needy +needs default-bad: builder failed/m);
    expect(result.stderr).toMatch(/^broken {3}devShells.*\.broken +not today$/m);
    expect(result.stderr).toContain("2 outputs of 6 failed");
    expect(await names(cache)).toEqual(["default-one", "default-shell", "default-two"]);

    const [written, empty] = [writes().length, await nix.emptyStore()];
    const env = { NIX_REMOTE: empty, NIXCACHE_INDEX_DIR: cli.path("other-index") };
    const again = await summaryOf(publish(cache, ["--json", "--strict"], { cwd, env }), 15);
    expect(again.statuses).toEqual({
      [`devShells.${SYSTEM}.bad`]: "failed",
      [`devShells.${SYSTEM}.broken`]: "broken",
      [`devShells.${SYSTEM}.needy`]: "blocked",
      [`devShells.${SYSTEM}.default`]: "substituted",
      [`packages.${SYSTEM}.one`]: "substituted",
      [`packages.${SYSTEM}.two`]: "substituted",
    });
    expect(again).toMatchObject({ generation: null, paths: { restated: 3, uploaded: 0 } });
    expect(again.stderr).toContain("3 outputs of 6 failed");
    // Whether it could be written is asked before the build.
    expect(
      writes()
        .slice(written)
        .map(({ method }) => method),
    ).toEqual(["POST", "DELETE"]);
  });

  test("takes nothing that its own key has not signed", async () => {
    const cache = newCache();
    const cwd = project(PACKAGES("foreign"));
    await cli.run(["keygen", "flake-1", cli.path("s2"), cli.path("p2")]);
    await summaryOf(publish(cache, ["--json"], { cwd, env: { NIXCACHE_SIGNING_KEY_FILE: cli.path("s2") } }));
    const env = { NIX_REMOTE: await nix.emptyStore() };
    const { statuses } = await summaryOf(publish(cache, ["--json"], { cwd, env }));
    expect(new Set(Object.values(statuses))).toEqual(new Set(["built"]));
  });

  test("builds while the cache cannot be read, and says so", async () => {
    const cwd = project(PACKAGES("dark"));
    const env = { NIXCACHE_RETRY_ATTEMPTS: "1" };
    const { code, stderr } = await publish("127.0.0.1:1/nothing/here", [], { cwd, env });
    expect(code).toBe(8);
    expect(stderr).toContain("builds cannot ask 127.0.0.1:1/nothing/here for what it has now");
    expect(stderr).toContain("building '/nix/store/");
  });

  describe("which outputs", () => {
    let cwd: string;
    beforeAll(() => {
      cwd = project(`${PACKAGES("which")}
        checks.${SYSTEM}.test = sh "which-test" "mkdir $out" { };
        deep.inside."a.b" = sh "which-deep" "mkdir $out $dev" { outputs = [ "out" "dev" ]; };`);
      writeFileSync(
        join(cwd, "default.nix"),
        `{ x ? 1 }: { first = ${shellDerivation("which-first", "mkdir $out")}; second = ${shellDerivation("which-second", "mkdir $out")}; }`,
      );
    });

    test.each<[string, string[], string[]]>([
      [
        "names and attribute paths",
        ["--flake", "./config", "--outputs", `checks deep.inside."a.b"`],
        ["deep", "deep-dev", "test"],
      ],
      [
        "outputs given several times",
        ["--outputs", "checks", "--outputs", " packages "],
        ["one", "test", "two"],
      ],
      ["a folder's bare name, with patterns", ["--flake", "config", "--include", "packages.*.o*"], ["one"]],
      ["what is left out", ["--flake", "config", "--exclude", "packages.*.two"], ["one"]],
      ["a Nix file", ["--file", "default.nix"], ["first", "second"]],
      ["one attribute of it", ["--file", "default.nix", "-A", "second"], ["second"]],
      ["FLAKE#ATTRIBUTE", ["./config#one"], ["one"]],
      ["with Nix's newer syntax, all outputs", ['./config#deep.inside."a.b"^*'], ["deep", "deep-dev"]],
      [
        "with Nix's newer syntax, some outputs",
        ['./config#deep.inside."a.b"^dev', "config#one^out"],
        ["deep-dev", "one"],
      ],
      [
        "several of several flakes",
        ["./config#one", "path:./config#checks", "config#two"],
        ["one", "test", "two"],
      ],
    ])("%s", async (_, args, expected) => {
      const cache = newCache();
      await summaryOf(publish(cache, ["--json", ...args], { cwd }));
      expect(await names(cache)).toEqual(expected.map((name) => `which-${name}`));
    });

    test.each<[string, string[], number, RegExp]>([
      ["an attribute that is not there", ["./config#three"], 15, /there is no such attribute/],
      ["paths besides a flake", ["--flake", "config", "./result"], 2, /--flake and paths exclude each other/],
      [
        "a flake and a file",
        ["--flake", "config", "--file", "x"],
        2,
        /--flake and --file exclude each other/,
      ],
      ["outputs of a file", ["--file", "default.nix", "--outputs", "x"], 2, /--outputs is for --flake/],
      ["attributes of a flake", ["-A", "x"], 2, /--attr is for --file/],
      ["outputs of paths", ["./result", "--outputs", "x"], 2, /--outputs is for what is built/],
      ["no flake there", ["--flake", "./nowhere"], 3, /cannot evaluate the flake .\/nowhere/],
      ["a command without --watch", ["--", "true"], 2, /--watch takes a command/],
      [
        "a pattern that nothing is like",
        ["./config#th*"],
        15,
        /missing {2}.\/config#th\* +nothing is like this/,
      ],
      [
        "a pattern among outputs, without --strict",
        ["--flake", "config", "--outputs", "packages deep.*.gone"],
        15,
        /missing +deep\.\*\.gone +nothing is like this/,
      ],
      ["an output of a flake that has none", ["./config#apps"], 15, /missing +.\/config#apps/],
      [
        "an output that a derivation has not",
        ["./config#one^man"],
        15,
        /it has no|there is no such output; it has out/,
      ],
      [
        "what shall be left out, and is not there",
        ["--flake", "config", "--exclude", "packages.*.secret"],
        15,
        /--exclude "packages\.\*\.secret": nothing that would be built is like this/,
      ],
      [
        "only what is not there",
        ["--flake", "config", "--include", "packages.*.gone"],
        15,
        /nothing is like this pattern of --include/,
      ],
      ["a list of outputs that is none", ["./config#one^"], 2, /expected outputs/],
    ])("not %s", async (_, args, code, says) => {
      const result = await publish(newCache(), args, { cwd });
      expect(result).toMatchObject({ code, stderr: expect.stringMatching(says) });
    });

    test("nothing to publish is said as such", async () => {
      const result = await publish(newCache(), [], { cwd: cli.path("cwd") });
      expect(result).toMatchObject({
        code: 2,
        stderr: expect.stringContaining("publish needs something to publish"),
      });
      const none = await publish(newCache(), ["--flake", "config", "--outputs", "apps"], { cwd });
      expect(none).toMatchObject({
        code: 0,
        stderr: expect.stringContaining(`there are no outputs for ${SYSTEM}`),
      });
    });
  });

  test("two names that are not there are two rows, each by its name, and the others are published", async () => {
    const cache = newCache();
    const cwd = project(PACKAGES("rows"));
    const named = ["one", "left", "right", `packages.${SYSTEM}.up`].map((name) => `./config#${name}`);
    const { statuses, paths } = await summaryOf(publish(cache, ["--json", ...named], { cwd }), 15);
    expect(statuses).toEqual({
      [`./config#packages.${SYSTEM}.one`]: "built",
      "./config#left": "missing",
      "./config#right": "missing",
      [`./config#packages.${SYSTEM}.up`]: "missing",
    });
    expect(paths.uploaded).toBe(1);
  });

  test("attributes of odd names are recorded, named as they are shown, and pinned", async () => {
    const cache = newCache();
    const odd = [
      'say "hi"',
      "back\\slash",
      "two\nlines",
      "a b",
      `$${"{x}"}`,
      "é",
      "*",
      "^out",
      "",
      "#",
      "or",
      "2048",
    ];
    const packages = odd.map((name, index) => `${nixString(name)} = sh "odd-${index}" "mkdir $out" { };`);
    const cwd = project(`packages.${SYSTEM} = { ${packages.join(" ")} };`);
    const all = await summaryOf(publish(cache, ["--json"], { cwd }));
    const shown = Object.keys(all.statuses);
    expect(shown.length).toBe(odd.length);
    expect(Object.keys((await records(cache))[0]?.roots ?? {}).sort()).toEqual([...shown].sort());

    const outputs = ["--flake", "config", "--outputs", shown.join(" ")];
    const again = await summaryOf(publish(cache, ["--json", ...outputs], { cwd }));
    expect(Object.keys(again.statuses).sort()).toEqual([...shown].sort());
    for (const [index, name] of shown.entries()) {
      const named = await summaryOf(publish(newCache(), ["--json", `./config#${name}`], { cwd }));
      expect(named.statuses).toEqual({ [`./config#${name}`]: "present" });
      const env = { NIXCACHE_CACHE: cache };
      const pin = await cli.run(["pin", `pin-${index}`, name, "--json"], { env });
      expect(pin).toMatchObject({ code: 0 });
      expect(JSON.parse(pin.stdout)).toMatchObject({
        storePath: again.outputs.find((row: { attribute: string }) => row.attribute === name).path,
      });
    }
  }, 120_000);

  test("content-addressed outputs and what depends on them, from the build and from the cache", async () => {
    const cache = newCache();
    const ca = '__contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";';
    const cwd = project(`packages.${SYSTEM} = rec {
      one = sh "ca-one" "mkdir $out; echo one > $out/x; echo dev > $dev" { outputs = [ "out" "dev" ]; ${ca} };
      two = sh "ca-two" "cat \${one}/x > $out" { };
      bad = sh "ca-bad" "exit 3" { ${ca} };
    };`);
    const settings = "extra-experimental-features = ca-derivations";
    const env = { NIX_CONFIG: [nix.env.NIX_CONFIG, settings].filter(Boolean).join("\n") };
    const of = (name: string) => `packages.${SYSTEM}.${name}`;
    const built = await summaryOf(publish(cache, ["--json"], { cwd, env }), 15);
    expect(built.statuses).toEqual({ [of("one")]: "built", [of("two")]: "built", [of("bad")]: "failed" });
    expect(await names(cache)).toEqual(["ca-one", "ca-one-dev", "ca-two"]);
    expect(Object.keys((await records(cache))[0]?.roots ?? {}).sort()).toEqual([
      of("one"),
      of("one^dev"),
      of("two"),
    ]);

    // A store that has nothing takes them by their realisations.
    const fresh = { ...env, NIX_REMOTE: await nix.emptyStore() };
    const again = await summaryOf(
      publish(cache, ["--json", "./config#one", "./config#two^out"], { cwd, env: fresh }),
    );
    const statuses = [`./config#${of("one")}`, `./config#${of("two")}`].map((name) => again.statuses[name]);
    if (nix.root !== undefined) expect(statuses).toEqual(["substituted", "substituted"]);
    const paths = (summary: { outputs: { path: string }[] }) =>
      summary.outputs
        .map(({ path }) => path)
        .filter(Boolean)
        .sort();
    expect(paths(again)).toEqual(paths(built));
    const watched = await summaryOf(publish(newCache(), ["--json", "--watch", "./config#two"], { cwd, env }));
    expect(watched.paths.uploaded).toBe(1);
  });

  test("derivations by their paths, and whatever else an argument can be, from standard input", async () => {
    const cache = newCache();
    const cwd = project(PACKAGES("listed"));
    const drv = (await nix.run("nix", ["eval", "--raw", "./config#two.drvPath"], { cwd })).trim();
    const stdin = `${drv}^*\n./config#one /nix/store/${"0".repeat(32)}-gone.drv^out\n`;
    const result = await summaryOf(publish(cache, ["--json", "--stdin"], { cwd, stdin }), 15);
    expect(result.statuses).toEqual({
      [drv.slice("/nix/store/".length)]: "built",
      [`./config#packages.${SYSTEM}.one`]: expect.stringMatching(/^(built|present)$/),
      [`/nix/store/${"0".repeat(32)}-gone.drv`]: "missing",
    });
    expect(await names(cache)).toEqual(["listed-one", "listed-two"]);
  });

  test("what nix build has built, by its link, and by its JSON on standard input", async () => {
    const cwd = project(PACKAGES("built"));
    const build = (...args: string[]) => nix.run("nix", ["build", ...args, "./config#two"], { cwd });
    await build();
    const cache = newCache();
    await summaryOf(publish(cache, ["--json", "./result"], { cwd }));
    expect(await names(cache)).toEqual(["built-one", "built-two"]);

    const stdin = await build("--json");
    for (const args of [["--stdin"], []]) {
      const cache = newCache();
      await summaryOf(publish(cache, ["--json", ...args], { cwd, stdin }));
      expect(await names(cache)).toEqual(["built-one", "built-two"]);
    }
  });

  test("--dry-run builds and uploads nothing", async () => {
    const cache = newCache();
    const before = writes().length;
    const { stderr, paths } = await summaryOf(
      publish(cache, ["--json", "--dry-run"], { cwd: project(PACKAGES("dry")) }),
    );
    expect(paths).toMatchObject({ uploaded: 2 });
    expect(stderr).toContain("would upload 2 paths");
    expect(writes().length).toBe(before);
  });

  describe("the record", () => {
    const git = (cwd: string, ...args: string[]) =>
      nix.run("git", ["-c", "user.name=n", "-c", "user.email=e@example.org", ...args], { cwd });

    async function checkout(prefix: string): Promise<string> {
      const cwd = project(PACKAGES(prefix));
      await git(cwd, "init", "--quiet", "--initial-branch=topic");
      await git(cwd, "remote", "add", "origin", "https://user:secret@example.org/o/r.git");
      await git(cwd, "add", "--all");
      await git(cwd, "commit", "--quiet", "--message=m");
      return cwd;
    }

    test("by hand: the checkout's repository, branch and commit, without its password", async () => {
      const cache = newCache();
      const cwd = await checkout("record");
      await summaryOf(publish(cache, ["--json"], { cwd }));
      const revision = (await git(cwd, "rev-parse", "HEAD")).trim();
      const [record] = await records(cache);
      expect(record).toMatchObject({
        source: "https://example.org/o/r#topic",
        branch: "topic",
        revision,
        system: SYSTEM,
        selection: "flake ./config: devShells nixosConfigurations packages",
      });
      expect(Object.keys(record?.roots ?? {})).toEqual([`packages.${SYSTEM}.one`, `packages.${SYSTEM}.two`]);
      expect(Object.values(record?.roots ?? {})[1]).toMatch(/^\/nix\/store\/.{32}-record-two$/);
    });

    test("in Actions: the run's, also for a pull request from a branch of any name", async () => {
      const cache = newCache();
      const cwd = await checkout("actions");
      const env = {
        ...{ GITHUB_ACTIONS: "true", GITHUB_REPOSITORY: "o/r", GITHUB_SHA: "abc", GITHUB_RUN_ID: "7" },
        ...{ GITHUB_REF_NAME: "12/merge", GITHUB_HEAD_REF: "main" },
      };
      const file = join(cwd, "config", "flake.nix");
      const hostile = "##[set-output name=generation]evil";
      const text = await Bun.file(file).text();
      writeFileSync(file, text.replace("one = ", `"${hostile}" = throw "${hostile}"; one = `));
      const result = await publish(cache, ["--json"], { cwd, env });
      // Names and reasons of strangers are in the JSON, and no commands.
      expect(readCommands(result.stdout)).toEqual([]);
      const broken = JSON.parse(result.stdout).outputs[0];
      expect(broken).toMatchObject({ attribute: `packages.${SYSTEM}."${hostile}"`, reason: hostile });
      expect(await records(cache)).toMatchObject([
        {
          source: "https://github.com/o/r#12/merge",
          branch: "main",
          revision: "abc",
          run: "https://github.com/o/r/actions/runs/7",
        },
      ]);
    });

    test("changes when roots do, although all paths are there; and else not", async () => {
      const cache = newCache();
      const cwd = await checkout("roots");
      const first = await summaryOf(publish(cache, ["--json"], { cwd }));
      const file = join(cwd, "config", "flake.nix");
      const text = await Bun.file(file).text();
      writeFileSync(file, text.replace("two = ", "three = "));
      const second = await summaryOf(publish(cache, ["--json"], { cwd }));
      expect(second).toMatchObject({ paths: { restated: 2, uploaded: 0 } });
      expect(second.generation).not.toBe(first.generation);
      const third = await summaryOf(publish(cache, ["--json"], { cwd }));
      expect(third.generation).toBeNull();
      const roots = (await records(cache)).map((record) => Object.keys(record.roots));
      const packages = (...names: string[]) => names.map((name) => `packages.${SYSTEM}.${name}`);
      expect(roots).toEqual([packages("one", "two"), packages("one", "three")]);
    });
  });

  test("nothing new among 2,000 paths: a few requests, none of which writes", async () => {
    const cache = newCache();
    const cwd =
      project(`packages.${SYSTEM}.many = sh "many" "cat \${builtins.toFile "list" (builtins.concatStringsSep "\\n"
      (builtins.genList (n: builtins.toFile "text-\${toString n}" "text \${toString n}") 1998))} > $out" { };`);
    const first = await summaryOf(publish(cache, ["--json"], { cwd }));
    expect(first.paths.uploaded).toBe(1999);
    const before = proxy.log.length;
    const again = await summaryOf(publish(cache, ["--json"], { cwd }));
    expect(again).toMatchObject({
      generation: null,
      paths: { restated: 1999, uploaded: 0 },
      bytes: { sent: 0 },
    });
    const requests = proxy.log.slice(before);
    expect(requests.map(({ method }) => method).filter((method) => method !== "GET")).toEqual([]);
    expect(requests.length).toBeLessThan(6);
  }, 60_000);

  test("what an upstream has signed is skipped without asking it", async () => {
    const cache = newCache();
    await cli.run(["keygen", "up-1", cli.path("up-s"), cli.path("up-p")]);
    const [signed, forged] = await nix.buildAll(
      `[ (${shellDerivation("signed", "mkdir $out")}) (${shellDerivation("forged", "mkdir $out; echo forged > $out/f")}) ]`,
    );
    const sign = (key: string, path: string) =>
      nix.run("nix", ["store", "sign", "--key-file", key, path as string]);
    await sign(cli.path("up-s"), signed as string);
    await cli.run(["keygen", "up-1", cli.path("fake-s"), cli.path("fake-p")]);
    await sign(cli.path("fake-s"), forged as string);
    const asked: string[] = [];
    const upstream = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: ({ url }) => {
        const { pathname } = new URL(url);
        if (pathname === "/nix-cache-info") return new Response("StoreDir: /nix/store\n");
        asked.push(pathname);
        return new Response(null, { status: 404 });
      },
    });
    try {
      const env = {
        NIXCACHE_UPSTREAM: `http://127.0.0.1:${upstream.port}`,
        NIXCACHE_UPSTREAM_KEYS: await Bun.file(cli.path("up-p")).text(),
      };
      const run = publish(cache, ["--json", signed as string, forged as string], { env });
      expect(await summaryOf(run)).toMatchObject({ paths: { upstream: 1, uploaded: 1 } });
      expect(asked.filter((path) => path.endsWith(".narinfo"))).toEqual([
        `/${forged?.slice(11, 43)}.narinfo`,
      ]);
      expect(await names(cache)).toEqual(["forged"]);
    } finally {
      await upstream.stop(true);
    }
  });

  test("holds what it publishes, whatever the garbage collector does meanwhile", async () => {
    const cache = newCache();
    const cwd = project(PACKAGES("held"));
    let listings = 0;
    proxy.before = async ({ path }) => {
      // The first is for the build, the second comes after it, before any path is read.
      if (path.endsWith("/tags/list") && ++listings > 1) await nix.run("nix-store", ["--gc"]);
      return undefined;
    };
    try {
      expect(await summaryOf(publish(cache, ["--json"], { cwd }))).toMatchObject({ paths: { uploaded: 2 } });
      expect(listings).toBeGreaterThan(1);
      expect(await names(cache)).toEqual(["held-one", "held-two"]);
    } finally {
      proxy.before = () => undefined;
    }
  });
});

/** `list`, `history`, `diff` and `why` as a person or a program runs them, on caches that real publishes made. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { PackageChange } from "../../src/inspect/diff.ts";
import { type Cli, type CliResult, openCli } from "../support/cli.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, flakeText, shellDerivation, type TestClosure, type TestNix } from "../support/nix.ts";
import { expectRefused } from "../support/refusal.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { storeVariables } from "../support/substitute.ts";
import { runOnScreen } from "../support/terminal.ts";

const SYSTEM = `${process.arch === "arm64" ? "aarch64" : "x86_64"}-${process.platform}`;
const REVISION = "0123456789abcdef0123456789abcdef01234567";
const PATHS = 30;

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let registry: TestRegistry;
let closure: TestClosure;

/** A flake whose `app` refers to `lib`, and `tool` to nothing. Always in the same place, so that publishes succeed each other. */
function project(app: string, lib: string, more = ""): string {
  const folder = cli.path("project");
  mkdirSync(join(folder, "config"), { recursive: true });
  const outputs = `packages.${SYSTEM} = rec {
    lib = sh "${lib}" "mkdir $out; echo content of a library > $out/lib" { };
    app = sh "${app}" "mkdir $out; ln -s \${lib} $out/lib" { };
    tool = sh "tool-1.0" "echo tool > $out" { }; ${more}
  };`;
  writeFileSync(join(folder, "config", "flake.nix"), flakeText(outputs));
  return folder;
}

/** Names have seconds, and those of one second may be in any order. */
async function nextSecond(): Promise<void> {
  const second = () => Math.floor(Date.now() / 1000);
  const started = second();
  while (second() === started) await Bun.sleep(20);
}

async function publish(cache: string, args: readonly string[], branch: string, cwd?: string) {
  const actions = { GITHUB_ACTIONS: "true", GITHUB_REPOSITORY: "acme/config", GITHUB_RUN_ID: "77" };
  const env = {
    ...storeVariables(nix),
    ...actions,
    ...{ GITHUB_SHA: REVISION, GITHUB_REF_NAME: branch },
    ...{ NIXCACHE_CACHE: cache, NIXCACHE_UPSTREAM: "" },
  };
  const result = await cli.run(["publish", ...args, "--json"], { env, ...(cwd && { cwd }) });
  if (result.code !== 0) throw new Error(result.stderr);
  return JSON.parse(result.stdout);
}

async function json(args: readonly string[]) {
  const { code, stdout, stderr } = await cli.run([...args, "--json"]);
  return { code, stderr, value: JSON.parse(stdout) };
}

describeWith(["nix", "registry"], "the views of", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    closure = await buildClosure(nix, { paths: PATHS, seed: 11 });
  });

  describe.each(["a folder", "a registry"])("%s", (kind) => {
    let cache: string;
    /** Of main, of main a day later, of another branch, and of bare paths. */
    let generations: string[];

    beforeAll(async () => {
      cache = kind === "a folder" ? cli.path("cache") : `${registry.host}/views`;
      const extra = 'extra = sh "extra-3.1" "echo extra > $out" { };';
      const runs = [
        ["main", () => project("app-1.0", "lib-1.0")],
        ["main", () => project("app-2.0", "lib-1.0", extra)],
        ["next", () => project("app-2.0", "lib-1.1")],
      ] as const;
      generations = [];
      for (const [branch, write] of runs) {
        generations.push((await publish(cache, [], branch, write())).generation);
        await nextSecond();
      }
      generations.push((await publish(cache, [closure.root], "main")).generation);
    });

    const at = (...args: string[]) => [...args, "--cache", cache];

    test("list: one path a line where it is piped, all that was published", async () => {
      const { code, stdout, stderr } = await cli.run(at("list"));
      const lines = stdout.trimEnd().split("\n");
      expect(code).toBe(0);
      expect(lines).toEqual(expect.arrayContaining([...closure.paths]));
      expect(lines).toHaveLength(PATHS + 7);
      expect(stderr).toMatch(/^\[info\] \S+ has 37 paths, \S+ \w+ unpacked, \S+ \w+ compressed\n$/);
    });

    test("list: a search, in an order, with a limit, as JSON with closures and generations", async () => {
      const { value } = await json(at("list", "app", "--generations", "--sort", "size", "--limit", "1"));
      expect(value).toMatchObject({
        cache: kind === "a folder" ? cache : expect.stringContaining("/views"),
        totals: { paths: 3 },
        paths: [{ path: expect.stringMatching(/^\/nix\/store\/\w{32}-app-[12]\.0$/) }],
      });
      expect(value.paths).toHaveLength(1);
      const { paths } = (await json(at("list", "app", "--generations"))).value;
      for (const path of paths) expect(path.closure).toMatchObject({ paths: 2, elsewhere: 0 });
      const held = paths.map(({ name, generations }: Record<string, unknown>) => [name, generations]);
      const [first, second, third] = generations;
      expect(held.sort()).toEqual(
        [
          ["app-1.0", [first]],
          ["app-2.0", [second]],
          ["app-2.0", [third]],
        ].sort(),
      );
      const root = (await json(at("list", closure.root))).value.paths;
      expect(root).toMatchObject([{ path: closure.root, closure: { paths: PATHS, elsewhere: 0 } }]);
      const sizes = await nix.run("nix", ["path-info", "--closure-size", closure.root]);
      expect(root[0].closure.narSize).toBe(Number(sizes.trim().split(/\s+/)[1]));
    });

    test("history: the newest first, with what each added", async () => {
      const { value, code } = await json(at("history"));
      expect(code).toBe(0);
      const source = "https://github.com/acme/config#main";
      expect(value).toMatchObject({
        total: 4,
        generations: [
          {
            generation: generations[3],
            source: "paths",
            paths: PATHS,
            before: null,
            added: { paths: PATHS },
          },
          { generation: generations[2], branch: "next", paths: 3, before: null, added: { paths: 3 } },
          { generation: generations[1], source, paths: 4, before: generations[0], added: { paths: 2 } },
          {
            ...{ generation: generations[0], source, branch: "main", system: SYSTEM, revision: REVISION },
            ...{ run: "https://github.com/acme/config/actions/runs/77", before: null, added: { paths: 3 } },
            outputs: { [`packages.${SYSTEM}.app`]: expect.stringMatching(/-app-1\.0$/) },
          },
        ],
      });
      const { stdout, stderr } = await cli.run(at("history", "--limit", "1"));
      expect(stdout).toStartWith(`${generations[3]}  `);
      expect(stderr).toContain("3 of them older: see them with --limit 4");
    });

    test("diff: packages and versions, paths, and everything as JSON", async () => {
      const { stdout, code } = await cli.run(at("diff", "main~1", "main"));
      expect(code).toBe(0);
      const lines = stdout.split("\n");
      expect(lines).toContain("1 package: other versions");
      expect(stdout).toMatch(/^ {2}app {4}1\.0 → 2\.0$/m);
      expect(stdout).toMatch(/^ {2}extra {2}3\.1 {2}\(\+\d+ B\)$/m);
      expect(stdout).toContain("2 paths added, 1 removed");
      const paths = await cli.run(at("diff", "main~1", "main", "--paths"));
      expect(paths.stdout).toMatch(/^- \S+-app-1\.0\n\+ \S+-app-2\.0\n\+ \S+-extra-3\.1\n$/);
      const { value } = await json(at("diff", generations[1] as string, "next"));
      expect(value).toMatchObject({
        before: { generation: generations[1], paths: 4, system: SYSTEM },
        after: { generation: generations[2], paths: 3 },
        packages: [
          { name: "app", change: "rebuilt", kept: ["2.0"] },
          { name: "extra", change: "removed", before: ["3.1"] },
          { name: "lib", change: "changed", before: ["1.0"], after: ["1.1"] },
        ],
      });
    });

    test("why: by path, base name, hash and link; through which root, and what keeps it", async () => {
      const [lib] = (await json(at("list", "lib-1.0"))).value.paths;
      const link = cli.path("cwd", `result-${kind.replace(/\W/g, "-")}`);
      symlinkSync(lib.path, link);
      const answers = [lib.path, `${lib.path}/lib`, lib.path.slice("/nix/store/".length), lib.hash, link].map(
        (name) => json(at("why", name)),
      );
      const [{ value, code } = { value: undefined, code: -1 }, ...others] = await Promise.all(answers);
      expect(code).toBe(0);
      for (const other of others) expect(other.value).toEqual(value);
      const root = `packages.${SYSTEM}.lib`;
      expect(value).toMatchObject({
        ...{ path: lib.path, hash: lib.hash, held: true, lastHolder: null, unread: [] },
        generations: [generations[1], generations[0]].map((generation) => ({
          ...{ generation, branch: "main", ends: false, rule: "young", root, chain: [lib.path] },
        })),
      });
      const text = await cli.run(at("why", closure.paths.find((path) => path !== closure.root) as string));
      expect(text.code).toBe(0);
      expect(text.stdout).toContain("is in 1 generation\n");
      expect(text.stdout).toContain(`    ${closure.root.slice("/nix/store/".length)}\n    → `);
      expect(text.stdout).toContain("stays: younger than a day");
    });

    test("why: what was never there is exit code 17, and so is what a selector names that is not", async () => {
      const hash = "0".repeat(32);
      const { code, value } = await json(at("why", hash));
      expect([code, value.held, value.leftIndexAt]).toEqual([17, false, null]);
      const text = await cli.run(at("why", `/nix/store/${hash}-x`));
      expect(text.code).toBe(17);
      expect(text.stdout).toContain(`/nix/store/${hash}-… is in no generation`);
      expect(text.stdout).toContain("Since when is not known");
      await expectRefused(cli, at("list", "no", "such", "words"), {
        code: 17,
        says: "no such words",
        hints: "Words",
      });
      const none = await json(at("list", "no-such-words"));
      expect([none.code, none.value.paths]).toEqual([17, []]);
      await expectRefused(cli, at("diff", "main", "nobody"), {
        code: 17,
        says: '"nobody"',
        hints: "history",
      });
      await expectRefused(cli, at("diff", "main~7", "main"), { code: 17, says: "expected 7" });
      const common = generations[0]?.slice(0, 8) as string;
      await expectRefused(cli, at("diff", common, "main"), { code: 2, says: "could be 4 generations" });
    });

    test("on a terminal lines fit, and NO_COLOR is obeyed", async () => {
      for (const columns of [80, 120, 140]) {
        const { code, lines, text } = await runOnScreen(cli, at("list", "--sort", "closure"), { columns });
        expect(code).toBe(0);
        expect(lines[0]).toMatch(columns < 140 ? /AGE {2}NAME$/ : /AGE {2}PATH$/);
        expect(lines[1]).toEndWith(columns < 140 ? "-root" : closure.root);
        expect(Math.max(...lines.slice(0, -2).map((line) => line.length))).toBeLessThanOrEqual(columns);
        expect(text).toContain("\u001b[2m");
      }
      for (const args of [["list"], ["history"], ["diff", "main~1", "main"], ["why", closure.root]]) {
        const { code, text } = await runOnScreen(cli, at(...args), { env: { NO_COLOR: "1" } });
        expect(code).toBe(0);
        expect(text).not.toContain("\u001b[");
      }
    });
  });

  test("diff says of versions what `nix store diff-closures` says", async () => {
    const cache = cli.path("closures");
    const build = (version: string, names: readonly string[]) => {
      const files = names.map((name) => `(builtins.toFile "${name}" "${name} ${version}")`).join(" ");
      return nix.build(shellDerivation(`system-${version}`, `echo ${"$"}{toString [ ${files} ]} > $out`));
    };
    const common = ["rebuilt-1.0", "etc-hostname", "unit-a.service", "python3.12-numpy-2.0.1"];
    const before = ["gone-1", "a-1.0", "a-1.0-bin", "two-1", "two-2", "source", "lost-1-lib32", "odd-_1"];
    const after = [
      "new-2",
      "a-2.0",
      "a-2.0-bin",
      "two-2",
      "two-3",
      "source-1",
      "etc-0.1",
      "odd-x_1",
      "zig-0.12-git",
    ];
    const roots = [await build("1.0", [...common, ...before]), await build("2.0", [...common, ...after])];
    const generations: string[] = [];
    for (const root of roots) generations.push((await publish(cache, [root], "main")).generation);
    const { value } = await json(["diff", ...generations, "--cache", cache]);
    const show = (versions: string[]) =>
      versions
        .map((version) => version || "ε")
        .sort()
        .join(", ") || "∅";
    const ours = value.packages
      .filter(({ before, after }: PackageChange) => before.length + after.length > 0)
      .map(({ name, before, after }: PackageChange) => `${name}: ${show([...before])} → ${show([...after])}`);
    const theirs = Bun.stripANSI(await nix.run("nix", ["store", "diff-closures", ...roots]));
    expect(ours.sort()).toEqual(theirs.trim().split("\n").sort());
    expect(ours.length).toBeGreaterThan(8);
  });

  test("an empty cache has nothing of all this, which is no error", async () => {
    const cache = cli.path("nothing");
    const list = await cli.run(["list", "--cache", cache]);
    expect(list).toMatchObject({ code: 0, stdout: "" });
    expect(list.stderr).toContain("has 0 paths");
    expect(await cli.run(["history", "--cache", cache])).toMatchObject({ code: 0, stdout: "" });
    expect((await cli.run(["why", closure.root, "--cache", cache])).code).toBe(17);
    expect((await cli.run(["diff", "latest", "latest", "--cache", cache])).stderr).toContain(
      "the cache has none",
    );
  });

  test("what closed its end of the pipe is no error", async () => {
    const script = `"$0" list --cache "$1" | head -n 1`;
    const pipe = Bun.spawn(
      ["sh", "-c", script, join(import.meta.dir, "../../dist/nixcache"), cli.path("cache")],
      {
        env: cli.env,
        stderr: "pipe",
      },
    );
    expect((await pipe.stdout.text()).trim().split("\n")).toHaveLength(1);
    expect(await pipe.stderr.text()).not.toContain("error");
  });

  test.each<[string[], number, string | RegExp]>([
    [["list", "--sort", "colour"], 2, /--sort: got "colour", expected one of name, size, closure, age/],
    [["list", "--limit", "0"], 2, "--limit"],
    [["list", "fire*"], 2, '"fire*"'],
    [["list", ..."abcdefghi"], 2, "got 9 words"],
    [["history", "--limit", "many"], 2, '"many"'],
    [["history", "extra"], 2, '"extra"'],
    [["diff"], 2, "two generations"],
    [["diff", "main"], 2, "two generations"],
    [["diff", "a", "b", "c"], 2, '"c"'],
    [["why"], 2, "PATH"],
    [["why", "./absent"], 3, "does not exist"],
    [["why", "/etc/passwd"], 3, "not in the Nix store"],
  ])("%j is refused", async (args, code, says) => {
    await expectRefused(cli, [...args, "--cache", cli.path("never-made")], { code, says });
  });

  test("a registry that is not there is its own error", async () => {
    for (const args of [["list"], ["history"], ["diff", "a", "b"], ["why", closure.root]]) {
      const { code, stdout }: CliResult = await cli.run([...args, "--cache", "127.0.0.1:1/x"], {
        env: { NIXCACHE_RETRY_ATTEMPTS: "1" },
      });
      expect([args[0], code, stdout]).toEqual([args[0], 8, ""]);
    }
  });
});

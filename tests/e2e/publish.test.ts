/** `nixcache publish`: what it takes, what it leaves out, what it says. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { chmod, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { snapshot } from "../support/cache-files.ts";
import { type Cli, type CliResult, type CliServer, openCli, type RunOptions } from "../support/cli.ts";
import { SYSTEM } from "../support/counted-nix.ts";
import { hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { flakeText, shellDerivation, type TestNix } from "../support/nix.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { openClient, storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let registry: TestRegistry;
let store: Record<string, string>;
/** `top` refers to `middle`, that to `base`; `other` to nothing. */
let paths: { base: string; middle: string; top: string; other: string };
let caches = 0;

const newCache = () => cli.path(`cache-${++caches}`);

function publish(args: readonly string[], options: RunOptions = {}): Promise<CliResult> {
  const upstream = args.includes("--upstream") ? [] : ["--upstream", ""];
  return cli.run(["publish", ...args, ...upstream], { ...options, env: { ...store, ...options.env } });
}

/** Which paths a cache has. */
async function held(cache: string): Promise<string[]> {
  const server = await serve(cache);
  const found: string[] = [];
  for (const path of Object.values(paths)) {
    if ((await server.get(`/${hashPart(path)}.narinfo`)).status === 200) found.push(path);
  }
  await server.stop();
  return found.sort();
}

async function serve(cache: string): Promise<CliServer> {
  const env = { NIXCACHE_INDEX_DIR: cli.path(`index-${++caches}`) };
  const server = await cli.serve(["--cache", cache, "--upstream", ""], { env });
  expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
  return server;
}

async function narinfo(cache: string, path: string): Promise<string> {
  const server = await serve(cache);
  const text = await (await server.get(`/${hashPart(path)}.narinfo`)).text();
  await server.stop();
  return text;
}

const sorted = (...list: string[]) => list.sort();

describeWith(["nix", "registry"], "publish", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    store = storeVariables(nix);
    const link = (name: string, to: string) =>
      shellDerivation(name, `mkdir $out; ln -s \${${to}} $out/${to}`);
    const [base, middle, top, other] = await nix.buildAll(`let
      base = ${shellDerivation("base", "mkdir $out; echo base > $out/file")};
      middle = ${link("middle", "base")};
      top = ${link("top", "middle")};
      other = ${shellDerivation("other", "echo other > $out")};
    in [ base middle top other ]`);
    paths = { base, middle, top, other } as typeof paths;
    await cli.run(["keygen", "publish-1", cli.path("s"), cli.path("p")]);
  });

  describe("what it takes", () => {
    test("paths on standard input, one a line", async () => {
      const cache = newCache();
      const stdin = `${paths.base}\n\n  ${paths.other}  \n`;
      expect(await publish(["--cache", cache], { stdin })).toMatchObject({ code: 0 });
      expect(await held(cache)).toEqual(sorted(paths.base, paths.other));
    });

    test("paths on standard input between blanks, and what nix path-info prints, beside arguments", async () => {
      const json = await nix.run("nix", ["path-info", "--json", paths.base, paths.other]);
      const all = sorted(paths.base, paths.middle, paths.other);
      for (const stdin of [
        `${paths.base} ${paths.other}`,
        json,
        JSON.stringify(paths.other),
        `${paths.other}\0`,
      ]) {
        const cache = newCache();
        expect(await publish(["--cache", cache, "--stdin", paths.middle], { stdin })).toMatchObject({
          code: 0,
        });
        expect(await held(cache)).toEqual(all);
      }
    });

    test("what is invalid is told, and the rest is published", async () => {
      const gone = `/nix/store/${"0".repeat(32)}-gone`;
      const stdin = [paths.base, gone, "./nothing", paths.other].join("\n");
      for (const [args, options] of [
        [[], { stdin }],
        [stdin.split("\n"), {}],
      ] as const) {
        const cache = newCache();
        const result = await publish(["--cache", cache, "--json", ...args], options);
        expect(result.code).toBe(12);
        expect(await held(cache)).toEqual(sorted(paths.base, paths.other));
        const { leftOut } = JSON.parse(result.stdout);
        expect(leftOut.map(({ path }: { path: string }) => path)).toEqual([gone, "./nothing"]);
        expect(result.stderr).toContain(`left out ${gone}: ${gone} is not a valid path of the Nix store`);
        expect(result.stderr).toContain("2 paths could not be published");
      }
      const nothing = await publish(["--cache", newCache(), gone, "./nothing"]);
      expect(nothing).toMatchObject({ code: 3, stderr: expect.stringContaining("it does not exist") });
      const absent = JSON.stringify({ [gone]: null });
      expect(await publish(["--cache", newCache()], { stdin: absent })).toMatchObject({
        code: 3,
        stderr: expect.stringContaining(`${gone}: it is not valid in the Nix store`),
      });
    });

    test("standard input that is not read is told, and that it is waited for", async () => {
      const { code, stderr } = await publish(["--cache", newCache(), paths.base], { stdin: paths.other });
      expect(code).toBe(0);
      expect(stderr).toContain("standard input was not read, as there were arguments");
      const quiet = await publish(["--cache", newCache(), paths.base]);
      expect(quiet.stderr).not.toContain("standard input");

      // Opened for reading and writing, a pipe never ends.
      const cwd = cli.path("waiting");
      await mkdir(cwd);
      const child = Bun.spawn(
        ["sh", "-c", 'mkfifo pipe; exec 3<>pipe; exec "$0" publish --cache ./c <&3', cli.program],
        {
          cwd,
          env: { ...cli.env, ...store },
          stdout: "ignore",
          stderr: "pipe",
        },
      );
      const reader = child.stderr.getReader();
      try {
        const { value } = await reader.read();
        expect(new TextDecoder().decode(value)).toContain("reading from standard input what to publish");
      } finally {
        child.kill("SIGKILL");
        await reader.cancel();
        await child.exited;
      }
    });

    test("links such as ./result, files below a path, and links to links", async () => {
      const cwd = cli.path("links");
      await mkdir(cwd);
      await symlink(paths.top, `${cwd}/result`);
      await symlink("result", `${cwd}/result-again`);
      for (const argument of ["./result", "result", "result-again", `${paths.top}/middle`]) {
        const cache = newCache();
        expect(await publish([argument, "--cache", cache], { cwd })).toMatchObject({ code: 0 });
        expect(await held(cache)).toEqual(sorted(paths.base, paths.middle, paths.top));
      }
    });

    test("the store is the one of nix.conf and NIX_CONFIG, as Nix has it, before that of NIX_REMOTE", async () => {
      const root = await nix.emptyStore();
      await nix.run("nix", ["copy", "--no-check-sigs", "--to", root, paths.middle]);
      const other = await nix.emptyStore();
      const conf = cli.path("conf-store");
      await mkdir(conf);
      const usual = nix.env.NIX_CONF_DIR === undefined ? "" : `include ${nix.env.NIX_CONF_DIR}/nix.conf\n`;
      await Bun.write(`${conf}/nix.conf`, `${usual}store = local?root=${root}\n`);
      for (const env of [
        { NIX_CONFIG: `store = ${root}` },
        { NIX_CONF_DIR: conf },
        { NIX_USER_CONF_FILES: `${conf}/nix.conf` },
        { NIX_CONF_DIR: conf, NIX_REMOTE: undefined },
      ]) {
        const cache = newCache();
        const named = await publish([paths.middle, "--cache", cache], { env: { NIX_REMOTE: other, ...env } });
        expect(named).toMatchObject({ code: 0 });
        expect(await held(cache)).toEqual(sorted(paths.base, paths.middle));
      }
      const env = { NIX_CONFIG: "store = ssh-ng://host" };
      expect(await publish([paths.middle, "--cache", newCache()], { env })).toMatchObject({
        code: 3,
        stderr: expect.stringContaining('the files of the Nix store "ssh-ng://host'),
      });
      // A flag comes first.
      const given = await publish([paths.middle, "--cache", newCache(), "--store", root], { env });
      expect(given).toMatchObject({ code: 0 });
    });

    test("a store behind a daemon with a socket of its own is asked through it", async () => {
      if (nix.root === undefined) return;
      const folder = cli.path("daemon");
      await mkdir(folder);
      const socket = `${folder}/socket`;
      const features = "extra-experimental-features = ca-derivations";
      const env = { ...nix.env, NIX_DAEMON_SOCKET_PATH: socket, NIX_CONFIG: features };
      const daemon = Bun.spawn(["nix-daemon"], { env, stdout: "ignore", stderr: "ignore" });
      try {
        const uri = `unix://${socket}?root=${nix.root}`;
        const isUp = () =>
          nix.run("nix", ["store", "ping", "--store", uri]).then(
            () => true,
            () => false,
          );
        for (let tries = 0; !(await isUp()); tries++)
          if (tries > 100) throw new Error("the daemon does not answer");
        // The usual database knows nothing of these paths.
        const settings = { NIX_REMOTE: await nix.emptyStore(), NIX_CONFIG: `store = ${uri}` };
        const cache = newCache();
        expect(await publish([paths.top, "--cache", cache], { env: settings })).toMatchObject({ code: 0 });
        expect(await held(cache)).toEqual(sorted(paths.base, paths.middle, paths.top));

        const flake = cli.path("daemon-flake");
        await mkdir(flake);
        const ca = '__contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";';
        await Bun.write(
          `${flake}/flake.nix`,
          flakeText(`packages.${SYSTEM}.default = sh "late" "echo late > $out" { ${ca} };`),
        );
        const both = { ...settings, NIX_CONFIG: `${settings.NIX_CONFIG}\n${features}` };
        const built = await publish([`path:${flake}`, "--json", "--cache", cache], { env: both });
        expect(built.stderr).toContain("the realisations cannot be read from Nix's database");
        expect(built.code).toBe(0);
        expect(JSON.parse(built.stdout).paths).toMatchObject({ closure: 1, uploaded: 1 });
      } finally {
        daemon.kill();
        await daemon.exited;
      }
    });

    test("--store names the store where NIX_REMOTE does not", async () => {
      const root = await nix.emptyStore();
      await nix.run("nix", ["copy", "--no-check-sigs", "--to", root, paths.middle]);
      const cache = newCache();
      const env = { NIX_REMOTE: undefined };
      expect(await publish([paths.middle, "--store", root, "--cache", cache], { env })).toMatchObject({
        code: 0,
      });
      expect(await held(cache)).toEqual(sorted(paths.base, paths.middle));
    });

    test("the key from a flag, from NIX_SIGNING_KEY and from NIXCACHE_SIGNING_KEY_FILE signs alike", async () => {
      const ways: [string[], RunOptions["env"] & object][] = [
        [["--signing-key-file", cli.path("s")], {}],
        [[], { NIX_SIGNING_KEY: await readFile(cli.path("s"), "utf8") }],
        [[], { NIXCACHE_SIGNING_KEY_FILE: cli.path("s") }],
      ];
      const found = new Set<string>();
      for (const [args, env] of ways) {
        const cache = newCache();
        expect(await publish([paths.other, "--cache", cache, ...args], { env })).toMatchObject({ code: 0 });
        found.add(await narinfo(cache, paths.other));
      }
      expect(found.size).toBe(1);
      expect([...found][0]).toMatch(/^Sig: publish-1:/m);
    });
  });

  test("--dry-run says what would be done and creates not one file", async () => {
    const cache = newCache();
    const result = await publish([paths.top, "--cache", cache, "--dry-run", "--json"]);
    expect(result).toMatchObject({ code: 0 });
    expect(result.stderr).toContain("would upload 3 paths");
    expect(JSON.parse(result.stdout)).toMatchObject({
      dryRun: true,
      generation: null,
      paths: { uploaded: 3 },
      bytes: { sent: 0 },
    });
    expect(existsSync(cache)).toBe(false);

    const before = await snapshot(registry.folder).catch(() => new Map());
    expect(await publish([paths.top, "--cache", `${registry.host}/dry`, "--dry-run"])).toMatchObject({
      code: 0,
    });
    expect(await snapshot(registry.folder).catch(() => new Map())).toEqual(before);
  });

  test("--json prints one object and nothing else on standard output", async () => {
    const cache = newCache();
    const summary = JSON.parse((await publish([paths.top, "--cache", cache, "--json"])).stdout);
    expect(summary).toEqual({
      cache,
      dryRun: false,
      generation: expect.stringMatching(/^\d{8}t\d{6}z-[0-9a-f]{16}$/),
      paths: { closure: 3, upstream: 0, restated: 0, uploaded: 3 },
      bytes: { nar: expect.any(Number), sent: expect.any(Number) },
      newPaths: expect.any(Array),
      leftOut: [],
      elapsedMs: expect.any(Number),
    });
    expect((await publish([paths.top, "--cache", cache])).stdout).toBe("");
  });

  test("another closure restates what the cache has, and uploads the rest alone", async () => {
    const cache = newCache();
    await publish([paths.middle, "--cache", cache]);
    const again = await publish([paths.top, paths.other, "--cache", cache, "--json"]);
    expect(JSON.parse(again.stdout).paths).toEqual({ closure: 4, upstream: 0, restated: 2, uploaded: 2 });
    expect(await held(cache)).toEqual(sorted(...Object.values(paths)));
  });

  test("a key given later signs what is in the cache already, beside the signatures it has", async () => {
    const cache = newCache();
    await cli.run(["keygen", "publish-2", cli.path("s2"), cli.path("p2")]);
    for (const key of ["s", "s2"]) {
      const result = await publish([
        paths.other,
        "--cache",
        cache,
        "--signing-key-file",
        cli.path(key),
        // What another key has signed counts where that key is given.
        ...(key === "s2" ? ["--trusted-public-key", await readFile(cli.path("p"), "utf8")] : []),
        "--json",
      ]);
      expect(JSON.parse(result.stdout).paths.uploaded).toBe(key === "s" ? 1 : 0);
    }
    const names = (await narinfo(cache, paths.other)).match(/^Sig: publish-\d/gm);
    expect(names?.sort()).toEqual(["Sig: publish-1", "Sig: publish-2"]);
  });

  describe("upstream", () => {
    test("what it has is left out, and comes from there through one server", async () => {
      const [theirs, ours] = [newCache(), newCache()];
      const sign = ["--signing-key-file", cli.path("s")];
      await publish([paths.middle, "--cache", theirs, ...sign]);
      const upstream = await serve(theirs);
      const result = await publish([
        paths.top,
        "--cache",
        ours,
        "--upstream",
        upstream.url,
        "--json",
        ...sign,
      ]);
      expect(JSON.parse(result.stdout).paths).toEqual({ closure: 3, upstream: 2, restated: 0, uploaded: 1 });
      expect(await held(ours)).toEqual([paths.top]);

      const env = { NIXCACHE_INDEX_DIR: cli.path(`index-${++caches}`) };
      const server = await cli.serve(["--cache", ours, "--upstream", upstream.url], { env });
      await server.get("/_refresh", { method: "POST" });
      const client = await openClient(nix, await readFile(cli.path("p"), "utf8"));
      await client.realise(server.url, [paths.top]);
      expect(await client.paths()).toEqual(sorted(paths.base, paths.middle, paths.top));
      await server.stop();
      await upstream.stop();
    });

    test("one that cannot be reached is one warning, and counts as having nothing", async () => {
      const cache = newCache();
      const result = await publish([paths.top, "--cache", cache, "--upstream", "http://127.0.0.1:1"]);
      expect(result).toMatchObject({ code: 0 });
      expect(result.stderr.match(/^\[warn\].*/gm)).toEqual([expect.stringContaining("http://127.0.0.1:1")]);
      expect(await held(cache)).toEqual(sorted(paths.base, paths.middle, paths.top));
    });
  });

  test("a path whose files have changed is left out with its dependents; the others are published", async () => {
    const root = await nix.emptyStore();
    await nix.run("nix", ["copy", "--no-check-sigs", "--to", root, paths.top, paths.other]);
    const file = nix.realPath(`${paths.base}/file`, root);
    await chmod(file, 0o644);
    await writeFile(file, "evil\n");
    const cache = newCache();
    const args = [paths.top, paths.other, "--store", root, "--cache", cache, "--json"];
    const result = await publish(args);
    expect(result.code).toBe(12);
    expect(await held(cache)).toEqual([paths.other]);
    const summary = JSON.parse(result.stdout);
    expect(summary.paths.uploaded).toBe(1);
    expect(summary.leftOut.map(({ path }: { path: string }) => path).sort()).toEqual(
      sorted(paths.base, paths.middle, paths.top),
    );
    for (const path of [paths.base, paths.middle, paths.top])
      expect(result.stderr).toContain(`left out ${path}`);
    expect(result.stderr).toContain("Nix recorded");

    await writeFile(file, "base\n");
    await chmod(file, 0o444);
    expect(await publish(args)).toMatchObject({ code: 0 });
    expect(await held(cache)).toEqual(sorted(...Object.values(paths)));
  });

  test("in GitHub Actions the generation says which repository and commit it is of", async () => {
    const cache = newCache();
    const env = { GITHUB_ACTIONS: "true", GITHUB_REPOSITORY: "owner/repo", GITHUB_SHA: "0123abcd" };
    expect(await publish([paths.other, "--cache", cache], { env })).toMatchObject({ code: 0 });
    const inspected = await Promise.all(
      [...(await snapshot(cache)).keys()].map((file) => readFile(`${cache}/${file}`, "utf8")),
    );
    const manifest = inspected.find((text) => text.includes("vnd.nixcache.segment"));
    expect(JSON.parse(manifest as string).annotations).toMatchObject({
      "org.opencontainers.image.source": "https://github.com/owner/repo",
      "org.opencontainers.image.revision": "0123abcd",
    });
  });
});

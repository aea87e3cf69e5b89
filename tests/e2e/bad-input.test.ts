/**
 * What bad input gets: one sentence that names its subject, one hint, an exit code of its own kind, no stack
 * trace, and nothing written. Damaged caches are in `damaged-index.test.ts`.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { type Cli, openCli, type RunOptions } from "../support/cli.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { shellDerivation } from "../support/nix.ts";
import { expectRefusal, expectRefused, type Refusal } from "../support/refusal.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

/** Milliseconds in which a registry that is not there must have been given up. */
const SOON_MS = 20_000;

let cli: Cli;

beforeAll(async () => {
  cli = cleanup.add(await openCli());
  await writeFile(cli.path("cwd", "a-file"), "no key, no folder, no cache\n");
  await mkdir(cli.path("cwd", "other"));
  await writeFile(cli.path("cwd", "other", "precious.txt"), "precious");
});

type Row = [name: string, args: string[], refusal: Refusal, options?: RunOptions];

const usage = (says: string | RegExp): Refusal => ({ code: 2, says, hints: "--help" });
const reference = (says: string): Refusal => ({ code: 5, says, hints: /Write|Leave out|Names are/ });

const USAGE: Row[] = [
  [
    "an unknown command",
    ["frobnicate"],
    { code: 2, says: '"frobnicate"', hints: /serve, publish, .*list, .*gc, .*keygen/ },
  ],
  ["an unknown flag", ["serve", "--frobnicate"], usage("--frobnicate")],
  ["an unknown short flag", ["publish", "-x"], usage("-x")],
  ["a flag of another command", ["keygen", "a", "--port", "1"], usage("--port")],
  ["a repeated flag", ["serve", "--port=1", "--port=2"], usage("--port is given more than once")],
  ["a flag without its value", ["serve", "--port"], usage("--port")],
  ["a flag in the place of a value", ["serve", "--port", "--listen", "::1"], usage("--port")],
  ["a value for a flag that takes none", ["publish", "--dry-run=no"], usage("--dry-run")],
  ["an argument too many", ["serve", "extra"], usage('"extra"')],
  ["keygen without a name", ["keygen"], usage("NAME")],
  ["publish without paths", ["publish"], usage("PATH")],
  ["a port that is no number", ["serve", "--port=http"], usage('"http"')],
  ["a port beyond all ports", ["serve", "--port=65536"], usage('"65536"')],
  ["an index TTL of nothing", ["serve", "--index-ttl=0"], usage('--index-ttl: got "0"')],
  ["an upstream that is no URL", ["serve", "--upstream", "cache.nixos.org"], usage('"cache.nixos.org"')],
  ["a compression level that is none", ["publish", "a", "--compression-level=99"], usage('"99"')],
  ["a part size that is none", ["publish", "a", "--part-size=big"], usage('--part-size: got "big"')],
  ["an empty cache reference", ["serve", "--cache", ""], reference('""')],
  ["a word as the cache reference", ["serve", "--cache", "foo"], reference('"foo"')],
  ["a tag in the cache reference", ["serve", "--cache", "ghcr.io/a/b:latest"], reference("latest")],
  ["another scheme in the cache reference", ["serve", "--cache", "s3://a/b"], reference('"s3://a/b"')],
  ["a port beyond all in the reference", ["serve", "--cache", "127.0.0.1:99999/x"], reference("99999")],
  ["a bad NIXCACHE_PORT", ["serve"], usage('"many"'), { env: { NIXCACHE_PORT: "many" } }],
  ["a bad NIXCACHE_CACHE", ["serve"], reference('"foo"'), { env: { NIXCACHE_CACHE: "foo" } }],
];

describe("usage", () => {
  // With fewer values than parameters Bun hands in a callback, and waits for its call.
  test.each(USAGE.map(([name, ...row]) => [name, row] as const))(
    "%s",
    async (_, [args, refusal, options]) => {
      await expectRefused(cli, args, refusal, options);
    },
  );

  test("no arguments at all print the help, and are a mistake all the same", async () => {
    const { code, stdout, stderr } = await cli.run([]);
    expect({ code, stderr }).toEqual({ code: 2, stderr: "" });
    for (const name of ["serve", "publish", "keygen"]) expect(stdout).toContain(name);
  });

  test("a stack trace comes with --verbose alone", async () => {
    const { code, stderr } = await cli.run(["serve", "--cache", "foo", "--verbose"]);
    expect(code).toBe(5);
    expect(stderr).toMatch(/^\s+at /m);
  });
});

describe("serve", () => {
  test("a port that is taken", async () => {
    const taken = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("") });
    try {
      await expectRefused(cli, ["serve", "--cache", "./new", "--port", `${taken.port}`], {
        code: 6,
        says: `127.0.0.1:${taken.port}: the port is taken`,
        hints: "--port",
      });
    } finally {
      await taken.stop(true);
    }
  });

  test("an address of another machine", async () => {
    await expectRefused(cli, ["serve", "--cache", "./new", "--listen", "192.0.2.1", "--port", "0"], {
      code: 6,
      says: "192.0.2.1",
      hints: "--listen",
    });
  });

  test("a local index that cannot be written", async () => {
    const env = { NIXCACHE_INDEX_DIR: cli.path("cwd", "a-file", "below") };
    await expectRefused(
      cli,
      ["serve", "--cache", "./new", "--port", "0"],
      { code: 7, says: "a-file/below", hints: "NIXCACHE_INDEX_DIR" },
      { env },
    );
  });
});

describeWith(["nix", "registry"], "publish", () => {
  const SECRET = "hunter2-hunter2-hunter2";
  let path: string;
  let store: Record<string, string>;
  let registry: TestRegistry;

  beforeAll(async () => {
    const nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry({ user: { name: "me", password: SECRET } }));
    path = await nix.build(shellDerivation("bad-input", "echo content > $out"));
    store = storeVariables(nix);
    await writeFile(cli.path("cwd", "public.key"), `a:${Buffer.alloc(32, 1).toString("base64")}`);
  });

  const refused = (args: string[], refusal: Refusal, env: RunOptions["env"] = {}) =>
    expectRefused(cli, ["publish", ...args, "--upstream", ""], refusal, { env: { ...store, ...env } });

  const MISSING = `/nix/store/${"0".repeat(32)}-missing`;
  const PATHS: [name: string, argument: string, says: string][] = [
    ["a store path that is not valid", MISSING, MISSING],
    ["a path outside the store", "/etc/passwd", '"/etc/passwd" names no path of the Nix store'],
    ["a path that is not there", "./gone", '"./gone" names no path of the Nix store: it does not exist'],
    ["the store itself", "/nix/store", '"/nix/store"'],
    ["a name in the store that is none", "/nix/store/short", "short"],
  ];
  test.each(PATHS)("%s", async (_, argument, says) => {
    await refused([argument, "--cache", "./new"], { code: 3, says });
  });

  test("a path that is not valid beside one that is: it is told, and the other is published", async () => {
    const args = ["publish", path, MISSING, "--cache", "./beside", "--upstream", ""];
    const { code, stderr } = await cli.run(args, { env: store });
    expect(code).toBe(12);
    expect(stderr).toContain(`left out ${MISSING}: ${MISSING} is not a valid path of the Nix store`);
    expect(stderr).toContain("published 1 path to ./beside");
    await rm(cli.path("cwd", "beside"), { recursive: true });
  });

  const KEYS: [name: string, file: string][] = [
    ["a key file that is no key", "a-file"],
    ["a key file that is a public key", "public.key"],
    ["a key file that is not there", "no-such.key"],
    ["a key file that is a folder", "other"],
  ];
  test.each(KEYS)("%s", async (_, file) => {
    const refusal = { code: 4, says: file, hints: "nixcache keygen" };
    await refused([path, "--cache", "./new", "--signing-key-file", file], refusal);
  });

  test.each([SECRET, `name:${SECRET}`, `${SECRET}:c2hvcnQ=`])(
    "NIX_SIGNING_KEY that is no key is never repeated (%#)",
    async (text) => {
      const refusal = { code: 4, says: "NIX_SIGNING_KEY" };
      const { stderr } = await refused([path, "--cache", "./new"], refusal, { NIX_SIGNING_KEY: text });
      expect(stderr).not.toContain("hunter2");
      const verbose = await cli.run(["publish", path, "--cache", "./new", "--verbose"], {
        env: { ...store, NIX_SIGNING_KEY: text },
      });
      expect(verbose.stderr).not.toContain("hunter2");
    },
  );

  const FOLDERS: [name: string, cache: string, refusal: Refusal][] = [
    ["a layout folder that is a file", "./a-file", { code: 10, says: "a-file: it is a file" }],
    ["a layout folder below a file", "./a-file/below", { code: 10, says: "a-file/below" }],
    [
      "a layout folder that holds something else",
      "./other",
      { code: 10, says: '"precious.txt"', hints: "Name another folder" },
    ],
    ["a folder that cannot be written", "/proc/nixcache", { code: 7, says: "/proc/nixcache" }],
  ];
  test.each(FOLDERS)("%s", async (_, cache, refusal) => {
    await refused([path, "--cache", cache], refusal);
  });

  test.each(FOLDERS.slice(0, 3))("%s: serve ends too", async (_, cache, { says }) => {
    const result = await cli.run(["serve", "--cache", cache, "--port", "0", "--upstream", ""]);
    expect(result.code).toBe(10);
    expect(result.stderr).toMatch(says);
  });

  test("a temporary folder that cannot be written leaves nothing in the cache", async () => {
    const random = cli.path("cwd", "new");
    const result = await cli.run(["publish", path, "--cache", random, "--upstream", ""], {
      env: { ...store, TMPDIR: cli.path("cwd", "a-file") },
    });
    // Small blobs need no file; both are right, a half of it is not.
    if (result.code !== 0) {
      expectRefusal(result, { code: 7, says: "a-file" });
      expect(existsSync(random)).toBe(false);
    } else {
      expect(await readdir(random)).toContain("index.json");
    }
  });

  const unreachable = { code: 8, says: "127.0.0.1:1/v2/x/", hints: "Check the host" };
  test("a registry that is not there is given up soon", async () => {
    const started = performance.now();
    await refused([path, "--cache", "127.0.0.1:1/x"], unreachable);
    expect(performance.now() - started).toBeLessThan(SOON_MS);
  });

  test("a dry run says so too", async () => {
    await refused([path, "--cache", "127.0.0.1:1/x", "--dry-run"], unreachable);
  });

  test("in GitHub Actions the repository's own package is the cache; GHCR out of reach is one sentence", async () => {
    const started = performance.now();
    const actions = { GITHUB_ACTIONS: "true", GITHUB_REPOSITORY: "Owner/Repo", GITHUB_TOKEN: SECRET };
    const { stderr } = await refused(
      [path],
      { code: 8, says: "ghcr.io/v2/owner/repo/nix-cache/" },
      // No request leaves this machine, wherever the test runs.
      { ...actions, HTTPS_PROXY: "http://127.0.0.1:1", https_proxy: "http://127.0.0.1:1" },
    );
    expect(stderr).not.toContain(SECRET);
    expect(performance.now() - started).toBeLessThan(SOON_MS);
  });

  describe("a registry that wants a password", () => {
    const login = async (home: string, password: string) => {
      const auth = Buffer.from(`me:${password}`).toString("base64");
      await mkdir(cli.path(home, ".docker"), { recursive: true });
      const config = { auths: { [registry.host]: { auth } } };
      await writeFile(cli.path(home, ".docker", "config.json"), JSON.stringify(config));
      return { ...store, HOME: cli.path(home) };
    };
    const args = () => ["publish", path, "--cache", `${registry.host}/x`, "--upstream", ""];

    test("refuses without one", async () => {
      await refused([path, "--cache", `${registry.host}/x`], {
        code: 9,
        says: `${registry.host}/x: not allowed`,
        hints: "docker login",
      });
    });

    test("refuses a wrong one, which is never repeated", async () => {
      const env = await login("wrong", "not-it-not-it");
      const result = await expectRefused(cli, args(), { code: 9, says: `${registry.host}/x` }, { env });
      expect(result.stderr).not.toContain("not-it");
      expect(result.stderr).not.toContain(Buffer.from("me:not-it-not-it").toString("base64"));
    });

    test("never gets GitHub's token", async () => {
      const result = await refused(
        [path, "--cache", `${registry.host}/x`],
        { code: 9, says: registry.host },
        {
          GITHUB_TOKEN: SECRET,
          GITHUB_ACTOR: "me",
        },
      );
      expect(result.stderr).not.toContain(SECRET);
    });

    test("takes what docker login has left", async () => {
      const env = await login("right", SECRET);
      expect(await cli.run(args(), { env })).toMatchObject({ code: 0 });
    });
  });
});

/** The release: what its five executables are, that the one for this machine needs nothing else, and its archives. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { ROOT } from "../../scripts/process.ts";
import { PLATFORMS, pack } from "../../scripts/release.ts";
import { type Cli, openCli } from "../support/cli.ts";
import { shellDerivation } from "../support/derivation.ts";
import { type Executable, readExecutable } from "../support/executable.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { makeRelease, RELEASE, RELEASE_ENV } from "../support/release.ts";
import { canMount } from "../support/small-disk.ts";
import { openClient } from "../support/substitute.ts";

/** Five executables of 100 MB, and five archives. */
const MAKE_WITHIN_MS = 900_000;

const EXPECTED: Readonly<Record<keyof typeof PLATFORMS, Executable>> = {
  "x86_64-linux": { format: "ELF", machine: "x86_64", interpreter: "/lib64/ld-linux-x86-64.so.2" },
  "aarch64-linux": { format: "ELF", machine: "arm64", interpreter: "/lib/ld-linux-aarch64.so.1" },
  "x86_64-linux-musl": { format: "ELF", machine: "x86_64", interpreter: "/lib/ld-musl-x86_64.so.1" },
  // macOS wants a signature of Apple's processors alone, and would take a wrong one amiss.
  "x86_64-darwin": { format: "Mach-O", machine: "x86_64", signed: undefined },
  "aarch64-darwin": { format: "Mach-O", machine: "arm64", signed: true },
};

const FILES = [
  "LICENSE",
  "completions/_nixcache",
  "completions/nixcache.bash",
  "completions/nixcache.fish",
  "man/nixcache.1",
  "nixcache",
];

const HERE = process.arch === "arm64" ? "aarch64-linux" : "x86_64-linux";
const binary = (platform: string) => join(RELEASE.bindir, platform, "nixcache");
const archive = (platform: string) => join(RELEASE.outdir, `nixcache-${platform}.tar.gz`);
const bytesOf = (file: string) => readFileSync(file);

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;

async function run(argv: readonly string[], cwd: string, env: Record<string, string> = {}): Promise<string> {
  const child = Bun.spawn([...argv], {
    cwd,
    env: { ...process.env, ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) throw new Error(`${argv.join(" ")}: status ${code}\n${errors}`);
  return out;
}

beforeAll(async () => {
  cli = cleanup.add(await openCli());
  await makeRelease();
}, MAKE_WITHIN_MS);

test("there is an archive for each platform, and its checksum", async () => {
  const names = Object.keys(PLATFORMS).map((platform) => `nixcache-${platform}.tar.gz`);
  expect(readdirSync(RELEASE.outdir).sort()).toEqual(["SHA256SUMS", ...names].sort());
  await run(["sha256sum", "--check", "--strict", "SHA256SUMS"], RELEASE.outdir);
  expect((await Bun.file(join(RELEASE.outdir, "SHA256SUMS")).text()).trim().split("\n").length).toBe(5);
});

test.each(Object.entries(EXPECTED))("%s", async (platform, expected) => {
  expect(readExecutable(binary(platform))).toEqual(expected);
  const { size, mode } = statSync(binary(platform));
  expect(mode & 0o111).toBe(0o111);
  expect([size > 80 * 1024 ** 2, size < 130 * 1024 ** 2]).toEqual([true, true]);

  const folder = cli.path(platform);
  mkdirSync(folder);
  await run(["tar", "-xzf", archive(platform)], folder);
  const files = await Array.fromAsync(new Bun.Glob("**/*").scan({ cwd: folder }));
  expect(files.sort()).toEqual(FILES);
  expect(statSync(join(folder, "nixcache")).mode & 0o777).toBe(0o755);
  expect(bytesOf(join(folder, "nixcache")).equals(bytesOf(binary(platform)))).toBe(true);
  expect(bytesOf(join(folder, "LICENSE"))).toEqual(bytesOf(join(ROOT, "LICENSE")));
  expect(statSync(archive(platform)).size).toBeLessThan(70 * 1024 ** 2);
});

test("a signature is told from a wrong one", () => {
  const copy = cli.path("changed");
  copyFileSync(binary("aarch64-darwin"), copy);
  const bytes = bytesOf(copy);
  bytes[50_000_000] = (bytes[50_000_000] ?? 0) ^ 1;
  writeFileSync(copy, bytes);
  expect(readExecutable(copy)).toEqual({ ...EXPECTED["aarch64-darwin"], signed: false });
});

test("the same sources give the same bytes, at another time and in another place", async () => {
  const again = cli.path("again", "nixcache");
  const target = PLATFORMS[HERE];
  const argv = [process.execPath, "scripts/build.ts", "--target", target, "--outfile", again];
  await run(argv, ROOT, RELEASE_ENV);
  expect(bytesOf(again).equals(bytesOf(binary(HERE)))).toBe(true);
  for (const name of FILES.filter((file) => file !== "nixcache")) {
    mkdirSync(dirname(cli.path("again", name)), { recursive: true });
    copyFileSync(join(RELEASE.bindir, HERE, name), cli.path("again", name));
    // What the mode of a checkout is depends on the person's umask.
    chmodSync(cli.path("again", name), 0o600);
  }
  await pack(cli.path("again"), FILES.toReversed(), cli.path("again.tar.gz"));
  expect(bytesOf(cli.path("again.tar.gz")).equals(bytesOf(archive(HERE)))).toBe(true);
}, 120_000);

test("what is beside the executable is what it prints itself, and it knows its releases", async () => {
  const own = { program: [binary(HERE)] };
  expect((await cli.run(["--version"], own)).stdout).toBe(`nixcache ${packageJson.version} (0123456789ab)\n`);
  for (const [args, name] of [
    [["man"], "man/nixcache.1"],
    [["completions", "bash"], "completions/nixcache.bash"],
    [["completions", "zsh"], "completions/_nixcache"],
    [["completions", "fish"], "completions/nixcache.fish"],
  ] as const) {
    expect((await cli.run(args, own)).stdout).toBe(readFileSync(join(RELEASE.bindir, HERE, name), "utf8"));
  }
  mkdirSync(cli.path("repository"));
  await run(["git", "init", "--quiet"], cli.path("repository"));
  await cli.run(["init", "--repo", "me/it"], { ...own, cwd: cli.path("repository") });
  const workflow = readFileSync(cli.path("repository", ".github/workflows/gc-cache.yml"), "utf8");
  expect(workflow).toContain(`uses: acme/nixcache@v${packageJson.version}\n`);
});

describe.skipIf(!canMount() && process.env.CI !== "true")("in a root of its own", () => {
  describeWith(["nix"], "with the libraries that it names, and /proc", () => {
    test("it publishes and serves", async () => {
      const { value: nix } = cleanup.add(await openNix());
      const root = cli.path("root");
      for (const folder of ["proc", "tmp"]) mkdirSync(join(root, folder), { recursive: true });
      copyFileSync(binary(HERE), join(root, "nixcache"));
      // `name => file (address)`, and the linker as `file (address)`.
      const libraries = (await run(["ldd", binary(HERE)], root)).match(/(?<=\s)\/\S+(?= \()/g) ?? [];
      expect(libraries.length).toBeGreaterThan(2);
      for (const library of libraries) {
        mkdirSync(dirname(join(root, library)), { recursive: true });
        copyFileSync(library, join(root, library));
      }
      const path = await nix.build(shellDerivation("alone", "echo alone > $out"));
      cpSync(nix.root ?? "", join(root, "store"), {
        recursive: true,
        verbatimSymlinks: true,
        dereference: false,
      });
      await cli.run(["keygen", "alone-1", join(root, "secret.key"), cli.path("public.key")]);
      expect(readdirSync(root).sort()).toEqual(
        ["lib", "lib64", "nixcache", "proc", "secret.key", "store", "tmp"].filter(
          (name) => name !== "lib64" || HERE === "x86_64-linux",
        ),
      );

      // The mount is in a namespace of the process, and goes with it.
      const script = 'mount --rbind /proc "$0/proc" && exec chroot "$0" /nixcache "$@"';
      const alone = {
        program: ["unshare", "--mount", "sh", "-c", script, root],
        env: { HOME: "/home", TMPDIR: "/tmp", NIXCACHE_INDEX_DIR: "/index", XDG_CACHE_HOME: undefined },
      };
      const cache = ["--cache", "/cache", "--upstream", ""];
      const publish = ["publish", path, "--store", "/store", "--signing-key-file", "/secret.key", ...cache];
      const published = await cli.run(publish, alone);
      expect(published).toMatchObject({
        code: 0,
        stderr: expect.stringContaining("published 1 path to /cache"),
      });

      const server = await cli.serve(cache, alone);
      const client = await openClient(nix, readFileSync(cli.path("public.key"), "utf8"));
      await client.copy(server.url, [path]);
      await client.verify();
      expect(await client.paths()).toEqual([path]);
      expect(await server.stop()).toBe(0);
      expect(readFileSync("/proc/mounts", "utf8")).not.toContain(root);
    }, 120_000);
  });
});

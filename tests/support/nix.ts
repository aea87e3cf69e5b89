/**
 * The real Nix for tests: stores of their own in a temporary folder, no network, nothing left behind.
 *
 * A test's store is a *chroot store* (`ROOT/nix/store`, with paths that say `/nix/store`), named to all Nix
 * commands, and to nixcache, by NIX_REMOTE. Nix builds in one with Linux namespaces, for root and mostly for
 * others too. Where they are forbidden the machine's own `/nix/store` is used, and what tests build stays there.
 */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lines, shellDerivation } from "./derivation.ts";

export { buildClosure, type ClosureOptions, type TestClosure } from "./closure.ts";
export { flakeText, shellDerivation } from "./derivation.ts";

export interface RunOptions {
  /** Over the store's own environment; `undefined` takes a variable away. */
  env?: Record<string, string | undefined>;
  /** What the program reads on standard input. Default: nothing. */
  stdin?: string;
  cwd?: string;
}

export interface TestNix {
  /** A temporary folder that is removed in the end. */
  readonly folder: string;
  /** The root of the chroot store; undefined where the machine's own store is used. */
  readonly root: string | undefined;
  /** The environment in which Nix's commands and nixcache use this store. */
  readonly env: Record<string, string>;
  /** Where a store path's files are. `root` for another chroot store. */
  realPath(storePath: string, root?: string): string;
  /** Standard output of a command. @throws with its standard error when it fails. */
  run(command: string, args: readonly string[], options?: RunOptions): Promise<string>;
  /** Builds the one derivation that a Nix expression gives. @returns its output path. */
  build(expression: string): Promise<string>;
  /** Output paths of all derivations of a Nix expression that gives a list or a set. */
  buildAll(expression: string): Promise<string[]>;
  /** A fresh chroot store's root folder, to copy or substitute into; use it as `--store` or NIX_REMOTE. */
  emptyStore(): Promise<string>;
}

/** Whether Nix's commands are there. With CI=true the test runner has seen to it that they are. */
export function hasNix(): boolean {
  return Bun.which("nix-store") !== null && Bun.which("nix") !== null;
}

/** Whether the Nix that the tests use is of this version, such as `2.26`, or newer. */
export function nixAtLeast(version: string): boolean {
  nixVersion ??=
    /\(Nix\) (\d+\.\d+)/.exec(Bun.spawnSync(["nix", "--version"]).stdout.toString())?.[1] ?? "0.0";
  return Bun.semver.order(`${nixVersion}.0`, `${version}.0`) >= 0;
}

let nixVersion: string | undefined;

/** Gives `body` a Nix with an empty store, cache and home folder, and removes them afterwards. */
export async function withNix<T>(body: (nix: TestNix) => Promise<T>): Promise<T> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), "nixcache-test-nix-")));
  try {
    return await body(await openNix(folder, await canBuildInChroot()));
  } finally {
    await removeStore(folder);
  }
}

/** Removes a folder with stores in it: their folders are read-only, which stops anybody but root. */
export async function removeStore(folder: string): Promise<void> {
  await Bun.spawn(["chmod", "-R", "u+w", folder], { stderr: "ignore" }).exited;
  await rm(folder, { recursive: true, force: true });
}

let chrootProbe: Promise<boolean> | undefined;

function canBuildInChroot(): Promise<boolean> {
  chrootProbe ??= probeChroot();
  return chrootProbe;
}

async function probeChroot(): Promise<boolean> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), "nixcache-test-probe-")));
  try {
    await (await openNix(folder, true)).build(shellDerivation("probe", "mkdir $out"));
    return true;
  } catch {
    return false;
  } finally {
    await removeStore(folder);
  }
}

async function openNix(folder: string, chroot: boolean): Promise<TestNix> {
  const root = chroot ? join(folder, "root") : undefined;
  const env = await prepareEnvironment(folder, root);
  let files = 0;

  const run: TestNix["run"] = async (command, args, options = {}) => {
    const merged = { ...env, ...options.env };
    const child = Bun.spawn([command, ...args], {
      cwd: options.cwd ?? folder,
      env: merged,
      stdin: options.stdin === undefined ? "ignore" : Buffer.from(options.stdin),
      stdout: "pipe",
      stderr: "pipe",
    });
    const [stdout, stderr, exitCode] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    if (exitCode !== 0) throw new Error(`${command} ${args.join(" ")}: status ${exitCode}\n${stderr}`);
    return stdout;
  };

  const buildAll = async (expression: string): Promise<string[]> => {
    const file = join(folder, `expression-${++files}.nix`);
    await writeFile(file, expression);
    return lines(await run("nix-build", ["--no-out-link", "--max-jobs", "auto", "--quiet", file]));
  };

  return {
    folder,
    root,
    env,
    realPath: (storePath, of = root) => (of ?? "") + storePath,
    run,
    buildAll,
    async build(expression) {
      const paths = await buildAll(expression);
      const [path] = paths;
      if (path === undefined || paths.length > 1)
        throw new Error(`built ${paths.length} paths instead of one`);
      return path;
    },
    async emptyStore() {
      const store = join(folder, `store-${++files}`);
      await mkdir(store);
      return store;
    },
  };
}

async function prepareEnvironment(folder: string, root: string | undefined): Promise<Record<string, string>> {
  const settings = ["experimental-features = nix-command flakes", "substituters ="];
  const env: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env)) {
    // What is set for the person's own Nix must not reach a test's.
    if (value !== undefined && !name.startsWith("NIX_")) env[name] = value;
  }
  env.HOME = join(folder, "home");
  env.XDG_CACHE_HOME = join(folder, "cache");
  await mkdir(env.HOME, { recursive: true });
  await mkdir(env.XDG_CACHE_HOME, { recursive: true });

  const isRoot = process.getuid?.() === 0;
  const installed = existsSync("/etc/nix/nix.conf") || existsSync("/nix/var/nix/daemon-socket/socket");
  if (root !== undefined || (isRoot && !installed)) {
    // What the sandbox of a chroot store shows of the machine: the shell, the core utilities, their libraries.
    const shown = ["/bin", "/usr", "/lib", "/lib64"].filter((path) => existsSync(path));
    settings.push("build-users-group =", "sandbox = false", `sandbox-paths = ${shown.join(" ")}`);
    env.NIX_CONF_DIR = join(folder, "conf");
    await mkdir(env.NIX_CONF_DIR);
    await writeFile(join(env.NIX_CONF_DIR, "nix.conf"), `${settings.join("\n")}\n`);
  } else {
    env.NIX_CONFIG = settings.join("\n");
  }
  if (root !== undefined) env.NIX_REMOTE = root;
  return env;
}

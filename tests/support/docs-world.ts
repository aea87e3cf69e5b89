/**
 * A machine for the commands of one page: the compiled binary on PATH, the real Nix with a store of its own, the real
 * registry, and a home with nothing in it.
 *
 * Doubles: `nixpkgs` is a flake of a few packages that `/bin/sh` builds, since the real one cannot be fetched.
 */
import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, realpath, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ROOT } from "../../scripts/process.ts";
import { openCacheStore } from "./audit.ts";
import { type ShellWorld, SYSTEM } from "./docs-shell.ts";
import { removeStore, type TestNix } from "./nix.ts";
import { freePort } from "./registry-process.ts";
import { storeVariables } from "./substitute.ts";
import { pushV1, v1Path } from "./v1-cache.ts";

/** What pages take out of nixpkgs. */
const NIXPKGS = `{
  outputs = { self }: let
    build = name: script: derivation {
      inherit name; system = "${SYSTEM}"; builder = "/bin/sh"; args = [ "-e" "-c" ("PATH=/usr/bin:/bin\\n" + script) ];
    };
    packages = rec {
      library = build "library" "mkdir $out; echo a library > $out/file";
      hello = build "hello-2.12" "mkdir -p $out/bin; echo 'echo Hello, world!' > $out/bin/hello; echo \${library} > $out/library";
      git = build "git-2.44" "mkdir $out; echo git > $out/file";
      jq = build "jq-1.7" "mkdir $out; echo jq > $out/file";
      writeShellScriptBin = name: text: build name "mkdir -p $out/bin; echo \${builtins.toFile name text} > $out/bin/\${name}";
      mkShell = { packages }: build "shell" "echo \${toString packages} > $out";
    };
  in {
    packages.${SYSTEM} = { inherit (packages) hello git jq; };
    legacyPackages.${SYSTEM} = packages;
    lib.genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
  };
}
`;

export interface Surroundings {
  readonly nix: TestNix;
  /** `127.0.0.1:PORT` of the registry. */
  readonly registry: string;
  /** URL of a binary cache that is not ours. */
  readonly binaryCache: string;
  /** A store path in there. */
  readonly elsewhere: string;
  /** URL below which the files of a release are. */
  readonly releases: string;
}

export interface PageWorld extends ShellWorld {
  close(): Promise<void>;
}

let worlds = 0;

/** What OWNER/REPO holds: `nixpkgs#hello`, and two publishes of a branch `main` beside it; or what nixcache-oci has left. */
export type Seed = "hello" | "branch" | "nixcache-oci";

/** What the branch `main` had. */
const publishes = ["git", "jq"].map(
  (name) => `{
  inputs.nixpkgs.url = "nixpkgs";
  outputs = { nixpkgs, ... }: { packages.${SYSTEM}.tool = nixpkgs.packages.${SYSTEM}.${name}; };
}
`,
);

/** A world with a cache OWNER/REPO that is signed, and with the `config` of ours in its folder. */
export async function openWorld({ nix, ...around }: Surroundings, seed: Seed): Promise<PageWorld> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), "nixcache-test-docs-")));
  const repository = `page-${++worlds}`;
  const port = await freePort();
  for (const name of ["bin", "home", "tmp", "work/config", "nixpkgs", "var/cache", "var/lib", "srv"])
    await mkdir(join(folder, name), { recursive: true });
  await symlink(join(ROOT, "dist", "nixcache"), join(folder, "bin", "nixcache"));
  await writeFile(join(folder, "nixpkgs", "flake.nix"), NIXPKGS);
  const config = await Bun.file(join(ROOT, "config", "flake.nix")).text();
  await writeFile(
    join(folder, "work", "config", "flake.nix"),
    config.replace('"github:NixOS/nixpkgs/nixos-unstable"', '"nixpkgs"'),
  );
  const flakes = {
    version: 2,
    flakes: [
      { from: { type: "indirect", id: "nixpkgs" }, to: { type: "path", path: join(folder, "nixpkgs") } },
    ],
  };
  await writeFile(join(folder, "registry.json"), JSON.stringify(flakes));
  const own = storeVariables(nix);
  // What `nixcache use` may write to is this world's.
  const conf = join(folder, "conf");
  await mkdir(conf);
  if (own.NIX_CONF_DIR) await copyFile(join(own.NIX_CONF_DIR, "nix.conf"), join(conf, "nix.conf"));
  const env = {
    ...own,
    ...(own.NIX_CONF_DIR && { NIX_CONF_DIR: conf }),
    NIX_CONFIG: `${own.NIX_CONFIG ?? ""}\nflake-registry = ${join(folder, "registry.json")}\n`,
    PATH: `${join(folder, "bin")}:${process.env.PATH}`,
    HOME: join(folder, "home"),
    TMPDIR: join(folder, "tmp"),
    LANG: "C.UTF-8",
    NIXCACHE_REGISTRY: around.registry,
    NIXCACHE_PORT: String(port),
    NIXCACHE_UPSTREAM: around.binaryCache,
    GIT_AUTHOR_NAME: "me",
    GIT_AUTHOR_EMAIL: "me@example.org",
    GIT_COMMITTER_NAME: "me",
    GIT_COMMITTER_EMAIL: "me@example.org",
  };
  const run = async (...argv: string[]) => {
    const child = Bun.spawn(argv, { cwd: folder, env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
    const [stdout, stderr, code] = await Promise.all([
      child.stdout.text(),
      child.stderr.text(),
      child.exited,
    ]);
    if (code !== 0) throw new Error(`${argv.join(" ")}: status ${code}\n${stderr}`);
    return stdout;
  };
  const cache = `${around.registry}/${repository}/repo/nix-cache`;
  await run("nixcache", "keygen", "me-1", "seed.key", "seed.pub");
  const publish = ["nixcache", "publish", "--cache", cache, "--signing-key-file", "seed.key"];
  if (seed === "nixcache-oci") await pushV1(openCacheStore(cache), [v1Path("one"), v1Path("two", ["one"])]);
  else await run(...publish, "nixpkgs#hello");
  for (const flake of seed === "branch" ? publishes : []) {
    const checkout = join(folder, "checkout");
    await mkdir(checkout, { recursive: true });
    await writeFile(join(checkout, "flake.nix"), flake);
    if (flake === publishes[0]) {
      await run("git", "init", "--quiet", "--initial-branch=main", checkout);
      await run("git", "-C", checkout, "remote", "add", "origin", "https://github.com/owner/repo");
    }
    await run("git", "-C", checkout, "add", ".");
    await run("git", "-C", checkout, "commit", "--quiet", "--message", "seed");
    await run(...publish, "--flake", checkout);
  }
  return {
    ...{ ...around, folder, env, repository, port },
    close: () => removeStore(folder),
  };
}

/** A release for this system, as `bun run release` names its files, of the executable that is there. */
export async function packRelease(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const script = `tar -C "${join(ROOT, "dist")}" -c nixcache | gzip -1 > nixcache-${SYSTEM}.tar.gz && sha256sum *.tar.gz > SHA256SUMS`;
  const child = Bun.spawn(["bash", "-o", "pipefail", "-c", script], { cwd: folder });
  if ((await child.exited) !== 0) throw new Error(`${script}: status ${child.exitCode}`);
}

/** Files, as any web server gives them away. */
export function serveFiles(folder: string): { readonly url: string; close(): Promise<void> } {
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: ({ url }) => {
      const file = join(folder, decodeURIComponent(new URL(url).pathname));
      return existsSync(file) ? new Response(Bun.file(file)) : new Response(null, { status: 404 });
    },
  });
  return { url: `http://127.0.0.1:${server.port}`, close: () => server.stop(true) };
}

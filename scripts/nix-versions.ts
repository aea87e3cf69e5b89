/**
 * Other versions of the real Nix than the machine's own: those of Debian's suites, kept unpacked in the user's cache
 * folder, `$XDG_CACHE_HOME/nixcache-tests/nix-SUITE`.
 *
 * Each has its own libraries and its own loader, so it runs on any Linux beside the machine's Nix, for any user. Whoever
 * has its `bin` folder first in PATH uses it.
 */
import { mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { unpackPackage } from "./debian.ts";
import { outputOf } from "./process.ts";

/** Debian's suites with a Nix that is new enough, the oldest first. Sid's moves on with Nix's releases. */
export const SUITES = ["bookworm", "trixie", "sid"] as const;

/** Has Nix 2.3, which is too old. */
const TOO_OLD = "bullseye";

export type Suite = (typeof SUITES)[number] | typeof TOO_OLD;

export function isSuite(word: string): word is Suite {
  return word === TOO_OLD || (SUITES as readonly string[]).includes(word);
}

export interface NixVersion {
  readonly suite: Suite;
  /** Nix's own, such as `2.34.8`. */
  readonly version: string;
  /** The folder with `nix`, `nix-store` and the others. */
  readonly bin: string;
}

/** Unpacks the Nix of a suite, unless that was done before. A newer one needs the folder removed. */
export async function nixOf(suite: Suite): Promise<NixVersion> {
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), ".cache");
  const folder = join(cache, "nixcache-tests", `nix-${suite}`);
  const bin = join(folder, "bin");
  const there = await versionIn(bin);
  if (there !== undefined) return { suite, version: there, bin };
  console.error(`Unpacking the Nix of Debian's ${suite} …`);
  const fresh = `${folder}.${process.pid}`;
  try {
    await unpackPackage("nix-bin", suite, join(fresh, "root"));
    await writeCommands(fresh, folder);
    await rm(folder, { recursive: true, force: true });
    await rename(fresh, folder);
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
  const version = await versionIn(bin);
  if (version === undefined) throw new Error(`${join(bin, "nix")} does not run`);
  return { suite, version, bin };
}

/** The version of the Nix in a folder, or in PATH; undefined where there is none that runs. */
export async function versionIn(bin?: string): Promise<string | undefined> {
  const nix = bin === undefined ? "nix" : join(bin, "nix");
  return /\(Nix\) (\d+(?:\.\d+)*)/.exec((await outputOf([nix, "--version"])) ?? "")?.[1];
}

/** The variables with which programs use this Nix in the place of the machine's own. */
export function environmentOf(nix: NixVersion): Record<string, string> {
  return { PATH: `${nix.bin}:${process.env.PATH ?? ""}` };
}

/** The first suite's that is newer than the machine's own. */
export async function newerNix(): Promise<NixVersion> {
  const own = await versionIn();
  const [, ...later] = SUITES;
  for (const suite of later) {
    const nix = await nixOf(suite);
    if (own === undefined || Bun.semver.order(pad(nix.version), pad(own)) > 0) return nix;
  }
  throw new Error(`no suite of Debian has a Nix newer than ${own}`);
}

/** With all three numbers, which `2.34` lacks. */
function pad(version: string): string {
  return [...version.split("."), "0", "0"].slice(0, 3).join(".");
}

/** Writes `bin`: each of Nix's commands, run with the libraries unpacked beside it. @param later where it will be */
async function writeCommands(folder: string, later: string): Promise<void> {
  const root = join(folder, "root");
  const find = (glob: string) => Array.fromAsync(new Bun.Glob(glob).scan({ cwd: root, onlyFiles: false }));
  const libraries = [
    ...(await find("lib/*-linux-gnu*")),
    ...(await find("usr/lib/*-linux-gnu*")),
    "usr/lib/nix",
  ];
  const [loader] = [...(await find("lib/*/ld-linux-*.so.*")), ...(await find("usr/lib/*/ld-linux-*.so.*"))];
  if (loader === undefined) throw new Error(`${root} has no loader of dynamic libraries`);
  const at = (file: string) => join(later, "root", file);
  await mkdir(join(folder, "bin"));
  for (const name of await readdir(join(root, "usr", "bin"))) {
    if (name !== "nix" && !name.startsWith("nix-")) continue;
    // NIX_BIN_DIR: Nix runs itself for some things, and would else run the machine's own.
    const script = [
      "#!/bin/sh",
      `export NIX_BIN_DIR='${join(later, "bin")}'`,
      `exec '${at(loader)}' --library-path '${libraries.map(at).join(":")}' '${at(join("usr/bin", name))}' "$@"`,
    ];
    await writeFile(join(folder, "bin", name), `${script.join("\n")}\n`, { mode: 0o755 });
  }
}

/**
 * Makes what a release is: `bun run release [--outdir DIR] [--bindir DIR]`. For each platform an executable, and an
 * archive with it, the licence, the man page and the completions; SHA256SUMS over the archives. The same sources give
 * the same bytes.
 */
import { mkdir, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import packageJson from "../package.json" with { type: "json" };
import { commands } from "../src/commands/commands.ts";
import { COMPLETIONS, PROGRAM } from "../src/commands/completions.ts";
import { manualText } from "../src/commands/man.ts";
import { describeCommands } from "../src/manual/command-spec.ts";
import { build, commitDate } from "./build.ts";
import { ROOT, runScript } from "./process.ts";

/** Archive names by Nix's system, to Bun's targets: https://bun.com/docs/bundler/executables#cross-compile */
export const PLATFORMS = {
  "x86_64-linux": "bun-linux-x64-baseline",
  "aarch64-linux": "bun-linux-arm64",
  "x86_64-linux-musl": "bun-linux-x64-musl-baseline",
  "x86_64-darwin": "bun-darwin-x64",
  "aarch64-darwin": "bun-darwin-arm64",
} as const;

export interface ReleaseFolders {
  /** For the archives and their checksums; emptied first. */
  readonly outdir: string;
  /** For the executables, as `PLATFORM/nixcache`. */
  readonly bindir: string;
}

/** Beside the executable: what is the same on every platform, by its name in the archive. */
const COMPLETION_FILES = { bash: "nixcache.bash", zsh: "_nixcache", fish: "nixcache.fish" } as const;

/** @returns the names of the archives */
export async function release({ outdir, bindir }: ReleaseFolders): Promise<string[]> {
  await rm(outdir, { recursive: true, force: true });
  await mkdir(outdir, { recursive: true });
  const common = await commonFiles();
  const archives: string[] = [];
  for (const [platform, target] of Object.entries(PLATFORMS)) {
    const folder = join(bindir, platform);
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true });
    await build({ target, outfile: join(folder, PROGRAM) });
    for (const [name, text] of common) await Bun.write(join(folder, name), text);
    const archive = `nixcache-${platform}.tar.gz`;
    await pack(folder, [PROGRAM, ...common.keys()], join(outdir, archive));
    archives.push(archive);
  }
  const sums = await Promise.all(
    archives.map(async (name) => `${await sha256(join(outdir, name))}  ${name}\n`),
  );
  await Bun.write(join(outdir, "SHA256SUMS"), sums.join(""));
  return archives;
}

async function commonFiles(): Promise<Map<string, string>> {
  const specs = describeCommands(commands);
  const completions = Object.entries(COMPLETION_FILES).map(
    ([shell, name]) => [`completions/${name}`, COMPLETIONS[shell]?.(PROGRAM, specs) ?? ""] as const,
  );
  const of = { version: packageJson.version, date: await commitDate() };
  return new Map([
    ["LICENSE", await Bun.file(join(ROOT, "LICENSE")).text()],
    ...completions,
    ["man/nixcache.1", manualText(commands, of)],
  ]);
}

/** Names, order, times, owners and the compressor's header say nothing of when and where it was made. */
export async function pack(folder: string, files: readonly string[], archive: string): Promise<void> {
  const tar = Bun.spawn(
    [
      ...["tar", "--create", "--format=ustar", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"],
      ...["--mode=u+w,go=rX", `--directory=${folder}`, ...[...files].sort()],
    ],
    { stdout: "pipe", stderr: "inherit" },
  );
  const gzip = Bun.spawn(["gzip", "--no-name", "-9"], {
    stdin: tar.stdout,
    stdout: Bun.file(archive),
    stderr: "inherit",
  });
  const codes = await Promise.all([tar.exited, gzip.exited]);
  if (codes.some((code) => code !== 0)) throw new Error(`${archive}: tar and gzip ended with ${codes}`);
}

async function sha256(file: string): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const chunk of Bun.file(file).stream()) hasher.update(chunk);
  return hasher.digest("hex");
}

if (import.meta.main) {
  await runScript(async () => {
    const { values } = parseArgs({ options: { outdir: { type: "string" }, bindir: { type: "string" } } });
    const outdir = resolve(values.outdir ?? join(ROOT, "dist", "release"));
    const bindir = resolve(values.bindir ?? join(ROOT, "dist", "binaries"));
    for (const name of await release({ outdir, bindir })) {
      console.log(`${name}  ${Math.round(Bun.file(join(outdir, name)).size / 2 ** 20)} MiB`);
    }
  });
}

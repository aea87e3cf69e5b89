/**
 * Makes what a release is: `bun run release [--outdir DIR]`. For each platform an archive with the executable and
 * the licence, and SHA256SUMS over them. The same sources give the same bytes.
 */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { build } from "./build.ts";
import { ROOT, runScript } from "./process.ts";

/** Archive names by Nix's system, to Bun's targets: https://bun.com/docs/bundler/executables#cross-compile */
export const PLATFORMS = {
  "x86_64-linux": "bun-linux-x64-baseline",
  "aarch64-linux": "bun-linux-arm64",
  "x86_64-linux-musl": "bun-linux-x64-musl-baseline",
  "x86_64-darwin": "bun-darwin-x64",
  "aarch64-darwin": "bun-darwin-arm64",
} as const;

/** @returns the names of the archives, in `outdir`. */
export async function release(outdir: string, platforms = Object.keys(PLATFORMS)): Promise<string[]> {
  await rm(outdir, { recursive: true, force: true });
  await mkdir(outdir, { recursive: true });
  const archives: string[] = [];
  for (const platform of platforms) {
    const folder = await mkdtemp(join(tmpdir(), "nixcache-release-"));
    try {
      await build({
        target: PLATFORMS[platform as keyof typeof PLATFORMS],
        outfile: join(folder, "nixcache"),
      });
      await Bun.write(join(folder, "LICENSE"), Bun.file(join(ROOT, "LICENSE")));
      const archive = `nixcache-${platform}.tar.gz`;
      await pack(folder, join(outdir, archive));
      archives.push(archive);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
  const sums = await Promise.all(
    archives.map(async (name) => `${await sha256(join(outdir, name))}  ${name}\n`),
  );
  await Bun.write(join(outdir, "SHA256SUMS"), sums.join(""));
  return archives;
}

/** Names, times, owners and the compressor's header say nothing of when and where it was made. */
async function pack(folder: string, archive: string): Promise<void> {
  const files = ["LICENSE", "nixcache"];
  const tar = Bun.spawn(
    [
      ...["tar", "--create", "--format=ustar", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"],
      ...["--mode=u+w,go=rX", `--directory=${folder}`, ...files],
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
    const { values } = parseArgs({ options: { outdir: { type: "string" } } });
    const outdir = resolve(values.outdir ?? join(ROOT, "dist", "release"));
    for (const name of await release(outdir)) {
      console.log(`${name}  ${Math.round(Bun.file(join(outdir, name)).size / 2 ** 20)} MiB`);
    }
  });
}

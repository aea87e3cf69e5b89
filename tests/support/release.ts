/** What `bun run release` makes, for tests: made once, and kept in dist/ until a source changes. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../../scripts/process.ts";

const FOLDER = join(ROOT, "dist", "test-release");

export const RELEASE = { outdir: join(FOLDER, "archives"), bindir: join(FOLDER, "binaries") } as const;

/** So that a commit alone changes nothing in the binaries. */
export const RELEASE_ENV = {
  NIXCACHE_COMMIT: "0123456789ab",
  NIXCACHE_DATE: "2026-01-02",
  NIXCACHE_REPOSITORY: "acme/nixcache",
} as const;

const SOURCES = [
  "src/**/*",
  "scripts/*.ts",
  "{package.json,bun.lock,bunfig.toml,tsconfig.json,LICENSE}",
  "config/flake.nix",
  ".github/workflows/*.yml",
];

export async function makeRelease(): Promise<void> {
  const mark = join(FOLDER, "made-of");
  const made = await fingerprint();
  if (existsSync(mark) && readFileSync(mark, "utf8") === made) return;
  const { outdir, bindir } = RELEASE;
  const argv = [process.execPath, "scripts/release.ts", "--outdir", outdir, "--bindir", bindir];
  const child = Bun.spawn(argv, {
    cwd: ROOT,
    env: { ...process.env, ...RELEASE_ENV },
    stdout: "ignore",
    stderr: "pipe",
  });
  const [errors, code] = await Promise.all([child.stderr.text(), child.exited]);
  if (code !== 0) throw new Error(`the release failed with status ${code}\n${errors}`);
  writeFileSync(mark, made);
}

async function fingerprint(): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256").update(`${Bun.version} ${JSON.stringify(RELEASE_ENV)}`);
  for (const pattern of SOURCES) {
    const files = await Array.fromAsync(new Bun.Glob(pattern).scan({ cwd: ROOT, dot: true }));
    for (const file of files.sort())
      hasher.update(`\n${file}\n`).update(await Bun.file(join(ROOT, file)).bytes());
  }
  return hasher.digest("hex");
}

/**
 * Makes the executable: `bun run build [--target bun-linux-arm64] [--outfile PATH] [--entry FILE]`.
 *
 * The flags that are not obvious: `--bytecode` with `--format=esm` halves the start-up time, and `--splitting` keeps
 * what is imported late out of it; without the two
 * `--no-compile-autoload-…` a `.env` or a `bunfig.toml` in the folder where nixcache is run would be read, and
 * its preload scripts *run*. The same sources and outfile name give the same bytes.
 * https://bun.com/docs/bundler/executables
 */
import { mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { parseArgs } from "node:util";
import packageJson from "../package.json" with { type: "json" };
import { withoutSignature } from "./macho.ts";
import { outputOf, ROOT, runScript } from "./process.ts";

export interface BuildOptions {
  /** A Bun target such as `bun-linux-arm64-musl`. Default: this machine. */
  target?: string | undefined;
  /** Default: `dist/nixcache`. */
  outfile?: string | undefined;
  /** Default: `src/start.ts`. */
  entry?: string | undefined;
}

/** @returns the executable's path. @throws when Bun's bundler fails; it has printed why. */
export async function build(options: BuildOptions = {}): Promise<string> {
  const outfile = options.outfile ?? join(ROOT, "dist", "nixcache");
  const constants = {
    NIXCACHE_VERSION: packageJson.version,
    NIXCACHE_COMMIT: await commit(),
    NIXCACHE_DATE: await commitDate(),
    // In GitHub Actions the repository that builds is the one that releases, also a fork's.
    NIXCACHE_REPOSITORY: process.env.NIXCACHE_REPOSITORY || process.env.GITHUB_REPOSITORY || "",
  };
  const argv = [
    ...["build", "--compile", "--minify", "--sourcemap", "--bytecode", "--format=esm", "--splitting"],
    ...["--no-compile-autoload-dotenv", "--no-compile-autoload-bunfig"],
    ...Object.entries(constants).map(([name, value]) => `--define=${name}=${JSON.stringify(value)}`),
    ...(options.target === undefined ? [] : [`--target=${options.target}`]),
  ];
  const entry = options.entry ?? join(ROOT, "src", "start.ts");
  await mkdir(dirname(outfile), { recursive: true });
  // Bun leaves source maps beside the executable, which has them inside.
  const folder = await mkdtemp(join(dirname(outfile), ".build-"));
  try {
    const file = join(folder, basename(outfile));
    await bundle([...argv, `--outfile=${file}`, entry]);
    const built = await Bun.file(file).bytes();
    const mended = withoutSignature(built);
    // In place, so that it stays executable.
    if (mended !== built) await Bun.write(file, mended);
    await rename(file, outfile);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return outfile;
}

async function bundle(argv: readonly string[]): Promise<void> {
  const child = Bun.spawn([process.execPath, ...argv], {
    cwd: ROOT,
    // Bun writes its value into the bundle: built by a test, the executable would log no more than one in a test.
    env: { ...process.env, NODE_ENV: "production" },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  // Bun tells of its progress at length; only a failure is worth reading.
  if (exitCode !== 0) throw new Error(`bun build failed with status ${exitCode}\n${stdout}${stderr}`);
}

/**
 * The commit that the sources are of: 12 hexadecimal digits, with `-dirty` when files differ from it; `unknown`
 * outside a git checkout. A packager who builds from an archive says it by NIXCACHE_COMMIT.
 */
async function commit(): Promise<string> {
  const given = process.env.NIXCACHE_COMMIT;
  if (given) return given;
  const head = await ofCheckout(["rev-parse", "--short=12", "HEAD"]);
  const status = await ofCheckout(["status", "--porcelain"]);
  if (head === undefined || status === undefined) return "unknown";
  return status === "" ? head : `${head}-dirty`;
}

/**
 * The day of that commit, in UTC: the man page has a date, and the same sources give the same bytes. Empty where nobody
 * knows; a packager says it by NIXCACHE_DATE.
 */
export async function commitDate(): Promise<string> {
  const given = process.env.NIXCACHE_DATE;
  if (given) return given;
  const seconds = await ofCheckout(["log", "-1", "--format=%ct"]);
  return seconds === undefined ? "" : new Date(Number(seconds) * 1000).toISOString().slice(0, 10);
}

/** An archive unpacked inside somebody else's checkout is not of that checkout's commit. */
async function ofCheckout(args: readonly string[]): Promise<string | undefined> {
  const prefix = await outputOf(["git", "rev-parse", "--show-prefix"]);
  return prefix === "" ? await outputOf(["git", ...args]) : undefined;
}

if (import.meta.main) {
  await runScript(async () => {
    const { values } = parseArgs({
      options: { target: { type: "string" }, outfile: { type: "string" }, entry: { type: "string" } },
    });
    const outfile = await build(values);
    console.log(`${relative(process.cwd(), outfile)}  ${Math.round(Bun.file(outfile).size / 2 ** 20)} MiB`);
  });
}

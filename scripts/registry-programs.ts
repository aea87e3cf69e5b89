/**
 * The programs that `bun run test:registries` runs against: those that environment variables name, and otherwise
 * those that Go's own client builds, at fixed versions, into a folder of the user's cache.
 */
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

export interface RegistryProgram {
  /** The environment variable that names a program of one's own. */
  readonly variable: string;
  /** What `go install` is given. Undefined for a program that it cannot build. */
  readonly module?: {
    readonly path: string;
    readonly version: string;
    /** The last part of the path, which is the name of the program. */
    readonly program: string;
    readonly tags?: string;
  };
}

export const REGISTRY_PROGRAMS = {
  olareg: {
    variable: "NIXCACHE_TEST_OLAREG",
    module: { path: "github.com/olareg/olareg/cmd/olareg", version: "v0.2.2", program: "olareg" },
  },
  distribution: {
    variable: "NIXCACHE_TEST_DISTRIBUTION",
    module: {
      path: "github.com/distribution/distribution/v3/cmd/registry",
      version: "v3.1.2",
      program: "registry",
    },
  },
  zot: {
    variable: "NIXCACHE_TEST_ZOT",
    module: {
      path: "zotregistry.dev/zot/v2/cmd/zot",
      version: "v2.1.20",
      program: "zot",
      tags: "minimal",
    },
  },
  // Its go.mod replaces modules, which `go install` refuses.
  gitea: { variable: "NIXCACHE_TEST_GITEA" },
} as const satisfies Record<string, RegistryProgram>;

export type RegistryProgramName = keyof typeof REGISTRY_PROGRAMS;

export interface FoundPrograms {
  /** The file of each program that is there. */
  readonly programs: ReadonlyMap<RegistryProgramName, string>;
  /** A sentence for each that is not. */
  readonly skipped: readonly string[];
}

/** What is needed to look for programs and to build them; replaced in tests. */
export interface ProgramsHost {
  readonly env: Readonly<Record<string, string | undefined>>;
  exists(file: string): boolean;
  /** Whether a program is on the PATH. */
  which(program: string): boolean;
  /** Runs `go` with these arguments. @returns what it said when it failed. */
  go(args: readonly string[], env: Readonly<Record<string, string>>): Promise<string | undefined>;
  /** Shown to the person before something takes long. */
  say(sentence: string): void;
}

/** @throws when a variable names a file that is not there. */
export async function findRegistryPrograms(host: ProgramsHost = realHost): Promise<FoundPrograms> {
  const programs = new Map<RegistryProgramName, string>();
  const skipped: string[] = [];
  for (const name of Object.keys(REGISTRY_PROGRAMS) as RegistryProgramName[]) {
    const found = await find(name, host);
    if (typeof found === "string") programs.set(name, found);
    else skipped.push(`${name} is skipped: ${found.why}`);
  }
  return { programs, skipped };
}

async function find(name: RegistryProgramName, host: ProgramsHost): Promise<string | { why: string }> {
  const { variable, module }: RegistryProgram = REGISTRY_PROGRAMS[name];
  const named = host.env[variable];
  if (named) {
    if (!host.exists(named))
      throw new Error(`${variable}: got ${named}, expected a program; it is not there`);
    return named;
  }
  if (module === undefined)
    return { why: `${variable} names no program, and \`go install\` cannot build it.` };
  const { path, version, program, tags } = module;
  const folder = join(cacheFolder(host.env), `${name}-${version}`);
  const file = join(folder, program);
  if (host.exists(file)) return file;
  if (!host.which("go"))
    return { why: `${variable} names no program, and Go is not installed to build one.` };
  const command = ["install", ...(tags === undefined ? [] : ["-tags", tags]), `${path}@${version}`];
  host.say(`Building ${name} ${version}: go ${command.join(" ")} …`);
  const failure = await host.go(command, { GOBIN: folder });
  if (failure === undefined && host.exists(file)) return file;
  return { why: `\`go ${command.join(" ")}\` failed: ${inOneLine(failure ?? "it left no program")}` };
}

/** Where what the tests have built stays: `$XDG_CACHE_HOME/nixcache-tests`. */
function cacheFolder(env: ProgramsHost["env"]): string {
  return join(env.XDG_CACHE_HOME || join(env.HOME || homedir(), ".cache"), "nixcache-tests");
}

/** Without what says that it is under way. */
function inOneLine(text: string): string {
  const lines = text.split("\n").map((line) => line.trim());
  return lines.filter((line) => line !== "" && !line.startsWith("go: downloading ")).join(" ");
}

const realHost: ProgramsHost = {
  env: process.env,
  exists: existsSync,
  which: (program) => Bun.which(program) !== null,
  async go(args, env) {
    const child = Bun.spawn(["go", ...args], {
      env: { ...process.env, ...env },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    const [said, exitCode] = await Promise.all([child.stderr.text(), child.exited]);
    return exitCode === 0 ? undefined : said;
  },
  say: (sentence) => console.log(sentence),
};

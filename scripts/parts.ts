/**
 * The outside programs that the tests and the demo use. Missing ones are installed from Debian where that is
 * possible (apt and root); otherwise one sentence says what to install.
 */
import { accessSync, constants } from "node:fs";
import { join } from "node:path";

export interface Part {
  /** Debian's package. */
  readonly package: string;
  /** The program whose presence shows that the part is there. */
  readonly program: string;
  readonly purpose: string;
}

export const PARTS = {
  nix: { package: "nix-bin", program: "nix-store", purpose: "the Nix package manager" },
  registry: {
    package: "docker-registry",
    program: "docker-registry",
    purpose: "an OCI registry to test with",
  },
  chromium: { package: "chromium", program: "chromium", purpose: "a browser to test with" },
  fish: { package: "fish", program: "fish", purpose: "a shell to test completions with" },
  groff: { package: "groff-base", program: "groff", purpose: "renders the man page" },
  mandoc: { package: "mandoc", program: "mandoc", purpose: "checks the man page" },
  nginx: { package: "nginx-light", program: "nginx", purpose: "a storage host to test with" },
  systemd: { package: "systemd", program: "systemd-analyze", purpose: "checks units" },
  wrk: { package: "wrk", program: "wrk", purpose: "measures HTTP servers" },
  curl: { package: "curl", program: "curl", purpose: "to compare downloads with" },
  zstd: { package: "zstd", program: "zstd", purpose: "to compare compression with" },
  skopeo: { package: "skopeo", program: "skopeo", purpose: "copies OCI images" },
  zsh: { package: "zsh", program: "zsh", purpose: "a shell to test completions with" },
} as const satisfies Record<string, Part>;

export type PartName = keyof typeof PARTS;

/** What is needed to look for programs and to install them; replaced in tests. */
export interface PartsHost {
  isThere(program: string): boolean;
  canInstall(): boolean;
  /** @returns whether all of it was installed. */
  install(packages: readonly string[]): Promise<boolean>;
  /** Shown to the person before something takes long. */
  say(sentence: string): void;
}

/**
 * Makes sure that the parts are there. Says nothing when they are.
 *
 * @returns the missing ones, when `optional`.
 * @throws with one sentence that names what to install, unless `optional`.
 */
export async function ensureParts(
  names: readonly PartName[],
  options: { optional?: boolean; host?: PartsHost } = {},
): Promise<PartName[]> {
  const { optional = false, host = realHost } = options;
  const missingNow = () => names.filter((name) => !host.isThere(PARTS[name].program));
  let missing = missingNow();
  if (missing.length > 0 && host.canInstall()) {
    const packages = missing.map((name) => PARTS[name].package);
    host.say(`Installing ${packages.join(", ")} …`);
    // What counts is whether the programs are there afterwards, so a failure shows below.
    await host.install(packages);
    missing = missingNow();
  }
  if (missing.length > 0) {
    const sentence = howToInstall(missing);
    if (!optional) throw new Error(sentence);
    host.say(sentence);
  }
  return missing;
}

function howToInstall(missing: readonly PartName[]): string {
  const programs = missing.map((name) => `\`${PARTS[name].program}\` (${PARTS[name].purpose})`);
  const packages = missing.map((name) => PARTS[name].package);
  const verb = programs.length === 1 ? "is" : "are";
  return `${programs.join(" and ")} ${verb} missing: install with \`apt-get install ${packages.join(" ")}\`, or by your system's own means.`;
}

/** Debian puts docker-registry among the daemons, which an ordinary PATH may leave out. */
const FOLDERS = [...(process.env.PATH ?? "").split(":"), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];

const realHost: PartsHost = {
  isThere: (program) => FOLDERS.some((folder) => folder !== "" && isExecutable(join(folder, program))),
  canInstall: () => process.getuid?.() === 0 && Bun.which("apt-get") !== null,
  async install(packages) {
    const aptGet = async (...args: string[]): Promise<boolean> => {
      // Another apt may be at work, as on a machine that was just started.
      const child = Bun.spawn(["apt-get", "-q", "-o", "DPkg::Lock::Timeout=120", ...args], {
        env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
        stdin: "ignore",
        stdout: "pipe",
        stderr: "pipe",
      });
      const [stdout, stderr, exitCode] = await Promise.all([
        new Response(child.stdout).text(),
        new Response(child.stderr).text(),
        child.exited,
      ]);
      // Hundreds of lines when it goes well; all of them when it does not.
      if (exitCode !== 0) process.stderr.write(stdout + stderr);
      return exitCode === 0;
    };
    // A list that cannot be fetched whole may still have the packages: only installing decides.
    await aptGet("update");
    return await aptGet("install", "-y", "--no-install-recommends", ...packages);
  },
  say: (sentence) => console.error(sentence),
};

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

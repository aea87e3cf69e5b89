/**
 * A Debian package of any suite with all that it depends on, unpacked into a folder. Nothing is installed, nobody need
 * be root, and the machine's own apt stays as it is: only its mirror, its proxies and its passwords are used.
 */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Has the keys of all suites. Where it is missing, apt goes by the keys that the machine trusts for everything. */
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

/** @throws where apt is missing, where it names no mirror of Debian, and when the suite has no such package. */
export async function unpackPackage(name: string, suite: string, folder: string): Promise<void> {
  const work = await mkdtemp(join(tmpdir(), "nixcache-debian-"));
  try {
    const apt = await privateApt(work, suite);
    await apt("update");
    await apt("install", "--yes", "--download-only", "--no-install-recommends", name);
    await mkdir(folder, { recursive: true });
    for (const file of await readdir(join(work, "archives"))) {
      if (file.endsWith(".deb")) await run(["dpkg-deb", "--extract", join(work, "archives", file), folder]);
    }
    // Half of it, and for people only.
    await rm(join(folder, "usr", "share"), { recursive: true, force: true });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** An apt-get that knows one suite of Debian, and thinks that nothing is installed. */
async function privateApt(work: string, suite: string): Promise<(...args: string[]) => Promise<string>> {
  const mirror = await debianMirror();
  const source = ["Types: deb", `URIs: ${mirror}`, `Suites: ${suite}`, "Components: main"];
  if (existsSync(KEYRING)) source.push(`Signed-By: ${KEYRING}`);
  await writeFile(join(work, "debian.sources"), `${source.join("\n")}\n`);
  for (const folder of ["lists/partial", "archives/partial"])
    await mkdir(join(work, folder), { recursive: true });
  await writeFile(join(work, "status"), "");
  const configuration = [
    // The machine's hooks are for packages that are installed.
    "#clear APT::Update;",
    "#clear DPkg::Pre-Install-Pkgs;",
    "#clear DPkg::Post-Invoke;",
    // Else root's downloads are another user's, who must not look into this folder.
    'APT::Sandbox::User "root";',
    'APT::Default-Release "";',
    'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";',
    `Dir::Etc::sourcelist "${join(work, "debian.sources")}";`,
    'Dir::Etc::sourceparts "-";',
    'Dir::Etc::preferences "-";',
    'Dir::Etc::preferencesparts "-";',
    `Dir::State "${work}";`,
    `Dir::State::lists "${join(work, "lists")}";`,
    `Dir::State::status "${join(work, "status")}";`,
    `Dir::Cache "${work}";`,
    `Dir::Cache::archives "${join(work, "archives")}";`,
  ];
  await writeFile(join(work, "apt.conf"), `${configuration.join("\n")}\n`);
  return (...args) => run(["apt-get", "-q", "-c", join(work, "apt.conf"), ...args]);
}

/** The mirror that the machine's apt is set up with: whoever can install a package reaches it. */
async function debianMirror(): Promise<string> {
  const list = () =>
    run(["apt-get", "indextargets", "--format", "$(IDENTIFIER) $(ORIGIN) $(CODENAME) $(REPO_URI)"]);
  const find = (targets: string) => /^Packages Debian [a-z]+ (\S+)$/m.exec(targets)?.[1];
  let mirror = find(await list());
  if (mirror === undefined && process.getuid?.() === 0) {
    // Whose packages an address has is known only once its lists were fetched.
    await run(["apt-get", "-q", "update"]).catch(() => {});
    mirror = find(await list());
  }
  if (mirror === undefined)
    throw new Error("apt knows no mirror of Debian: this needs a machine or a container with Debian");
  return mirror;
}

/** What a program prints. @throws with all that it printed when it fails. */
async function run(argv: string[]): Promise<string> {
  if (Bun.which(argv[0] ?? "") === null) throw new Error(`${argv[0]} is missing: this needs Debian`);
  const child = Bun.spawn(argv, {
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C" },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (exitCode !== 0) throw new Error(`${argv.join(" ")}: status ${exitCode}\n${stdout}${stderr}`);
  return stdout;
}

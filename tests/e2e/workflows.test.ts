/**
 * The very `run:` steps of our workflow files and of `action.yml`, in order, on a double of GitHub Actions with the
 * real Nix, the real docker-registry and the real git. Each job has a machine of its own: an empty Nix store.
 *
 * Doubles in the place of programs: `npx --yes bun@VERSION` is the Bun that runs the tests, `run build` takes the
 * binary that is built already, and `gh` keeps a release's files in a folder.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { chmod, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ROOT } from "../../scripts/process.ts";
import { PLATFORMS } from "../../scripts/release.ts";
import {
  type JobResult,
  type Machine,
  type RunOptions,
  readWorkflow,
  runSteps,
  runWorkflow,
  type Step,
  type StepResult,
} from "../support/actions-runner.ts";
import { type Cli, openCli } from "../support/cli.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import type { TestNix } from "../support/nix.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { openClient, storeVariables } from "../support/substitute.ts";

const SYSTEM = `${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux`;
const VERSION = (await Bun.file(join(ROOT, "package.json")).json()).version as string;
const OTHERS = `packages.${SYSTEM}`;
const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let registry: TestRegistry;
let publicKey: string;
let machines = 0;

/** What breaks, and says what a workflow command would be if the runner took it for one. */
const BROKEN = `
  bad = sh "bad" "echo '##[set-output name=public-key]evil'; echo '::error::fake'; exit 3";
  "##[set-output name=generation]evil" = throw "::set-output name=uploaded::evil";`;

const flake = (broken: string) => `{
  inputs.dep = { url = "git+file://${cli.path("dep.git")}?ref=main"; flake = false; };
  outputs = { self, dep }: let
    sh = name: script: derivation {
      inherit name; system = "${SYSTEM}"; builder = "/bin/sh"; args = [ "-e" "-c" ("PATH=/usr/bin:/bin; " + script) ];
    };
  in {
    packages.${SYSTEM} = rec {
      library = sh "library" "mkdir $out; echo library > $out/file";
      program = sh "program" "mkdir $out; ln -s \${library} $out/library; echo version \${builtins.readFile "\${dep}/version"} > $out/file";
      ${broken}
    };
    devShells.${SYSTEM}.default = sh "shell" "echo \${self.packages.${SYSTEM}.program} > $out";
    nixosConfigurations.box.config.system.build.toplevel = sh "nixos-system-box" "ln -s \${self.packages.${SYSTEM}.library} $out";
  };
}
`;

const PACKAGE = JSON.stringify({
  name: "fork",
  version: VERSION,
  scripts: {
    build: `mkdir -p dist && ln -s "${join(ROOT, "dist", "nixcache")}" dist/nixcache`,
    demo: "echo the demo has run",
    test: "echo the tests have run",
    release: `mkdir -p dist/release && cd dist/release &&
      touch ${Object.keys(PLATFORMS)
        .map((platform) => `nixcache-${platform}.tar.gz`)
        .join(" ")} &&
      tar -C "${join(ROOT, "dist")}" -c nixcache | gzip -1 > nixcache-${SYSTEM}.tar.gz && sha256sum *.tar.gz > SHA256SUMS`,
    "nix-release": `bun "${join(ROOT, "scripts", "nix-release.ts")}"`,
  },
});

const NPX = `#!/bin/sh
[ "$1 $2" = "--yes bun@${Bun.version}" ] || { echo "npx $*: expected --yes bun@${Bun.version}" >&2; exit 1; }
shift 2
exec "${process.execPath}" "$@"
`;

/** A person's work in a clone of the remote: writes files and pushes. */
async function push(remote: string, message: string, files: Readonly<Record<string, string>>): Promise<void> {
  const clone = cli.path(`clone-${message.replaceAll(" ", "-")}`);
  await git("clone", "--quiet", cli.path(remote), clone);
  for (const [name, text] of Object.entries(files)) {
    await mkdir(join(clone, name, ".."), { recursive: true });
    await writeFile(join(clone, name), text);
  }
  await git("-C", clone, "add", "--all");
  const person = ["-c", "user.name=Person", "-c", "user.email=person@example.org"];
  await git("-C", clone, ...person, "commit", "--quiet", "--message", message);
  await git("-C", clone, "push", "--quiet", "origin", "HEAD:main");
}

const git = (...args: string[]) => nix.run("git", args, { env: { HOME: cli.path("home") } });
const inRemote = async (...args: string[]) =>
  (await git("--git-dir", cli.path("remote.git"), ...args)).trim();
const commits = async () => (await inRemote("log", "--format=%an: %s", "main")).split("\n");

async function machine(workspace: string): Promise<Machine> {
  const home = cli.path(`machine-${++machines}`);
  await mkdir(home);
  const env = {
    ...storeVariables(nix),
    PATH: `${cli.path("bin")}:${process.env.PATH}`,
    HOME: home,
    NIX_REMOTE: await nix.emptyStore(),
    NIXCACHE_REGISTRY: registry.host,
    NIXCACHE_UPSTREAM: "",
    GITHUB_ACTION_PATH: ROOT,
    RELEASES: cli.path("releases"),
  };
  return { workspace, env };
}

async function options(over: Partial<RunOptions> = {}): Promise<RunOptions> {
  const github = {
    repository: "Acme/Config",
    ref: "refs/heads/main",
    ref_name: "main",
    ref_type: "branch",
    sha: await inRemote("rev-parse", "main"),
    run_id: String(1000 + machines),
    server_url: "https://github.com",
    token: "a-token-for-ghcr-alone",
    ...over.github,
  };
  return {
    folder: cli.path("actions"),
    event: { ref: github.ref, after: github.sha },
    secrets: { NIX_SIGNING_KEY: readFileSync(cli.path("secret.key"), "utf8") },
    isHere: ({ system }) => system === SYSTEM,
    machine,
    actions: {
      "actions/checkout": async (inputs, { workspace }) => {
        const branch = (inputs.ref ?? github.ref).replace(/^refs\/(heads|tags)\//, "");
        await git(
          "clone",
          "--quiet",
          "--depth",
          "1",
          "--branch",
          branch,
          `file://${cli.path("remote.git")}`,
          workspace,
        );
      },
      "cachix/install-nix-action": async () => {},
      "actions/attest-build-provenance": async (inputs, { workspace }) => {
        const sums = inputs["subject-checksums"] ?? "";
        await nix.run("sha256sum", ["--check", "--strict", "SHA256SUMS"], {
          cwd: join(workspace, sums, ".."),
        });
      },
    },
    ...over,
    github,
  };
}

async function run(name: string, over: Partial<RunOptions> = {}): Promise<Record<string, JobResult>> {
  return runWorkflow(await readWorkflow(join(ROOT, ".github/workflows", name)), await options(over));
}

function step(results: Record<string, JobResult>, job: string, name: string): StepResult {
  const found = results[job]?.steps.find((step) => step.name === name);
  if (found === undefined)
    throw new Error(`there is no step ${name} in ${job}: ${JSON.stringify(results, null, 1)}`);
  return found;
}

/** Status by attribute, as the table in a summary has it. */
function statuses({ summary }: StepResult): Record<string, string> {
  const rows = summary.matchAll(/^\| <code>([^|]*)<\/code> \| (\w+) \|/gm);
  const plain = (text: string) =>
    text.replace(/&#(\d+);/g, (_, code: string) => String.fromCharCode(Number(code)));
  return Object.fromEntries([...rows].map(([, name = "", status = ""]) => [plain(name), status]));
}

const storePaths = ({ summary }: StepResult) => [
  ...new Set(summary.match(/\/nix\/store\/[0-9a-z]{32}-[a-z-]+/g)),
];

/** All that the registry has: manifests and blobs. */
const stored = () =>
  readdirSync(registry.folder, { recursive: true })
    .map(String)
    .filter((file) => file.endsWith("data") || file.endsWith("link"))
    .sort();

describeWith(["nix", "registry"], "workflows", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    for (const folder of ["bin", "actions", "releases"]) await mkdir(cli.path(folder));
    await writeFile(cli.path("bin", "npx"), NPX);
    await writeFile(
      cli.path("bin", "gh"),
      `#!/bin/sh
case "$1 $2 $4 $5" in
  "release create --verify-tag --generate-notes") mkdir -p "$RELEASES/$3"; tag=$3; shift 5; cp "$@" "$RELEASES/$tag" ;;
  "release download --pattern SHA256SUMS") [ "$6" = --dir ] && cp "$RELEASES/$3/$5" "$7" ;;
  *) echo "gh $*" >&2; exit 1 ;;
esac
`,
    );
    for (const name of ["npx", "gh"]) await chmod(cli.path("bin", name), 0o755);
    await cli.run(["keygen", "acme-1", cli.path("secret.key"), cli.path("public.key")]);
    publicKey = readFileSync(cli.path("public.key"), "utf8").trim();
    for (const name of ["remote.git", "dep.git"]) {
      await git("init", "--quiet", "--bare", "--initial-branch=main", cli.path(name));
    }
    await push("dep.git", "First version", { version: "1" });
    const ignored = "dist/\n";
    await push("remote.git", "Begin", {
      "config/flake.nix": flake(BROKEN),
      "package.json": PACKAGE,
      ".gitignore": ignored,
    });
  }, 60_000);

  test("publish-cache: what builds is published although something fails, and a second run finds it", async () => {
    const first = await run("publish-cache.yml");
    const published = step(first, "publish", "Publish");
    expect(published.outcome).toBe("failure");
    expect(statuses(published)).toEqual({
      [`${OTHERS}.bad`]: "failed",
      [`${OTHERS}."##[set-output name=generation]evil"`]: "broken",
      [`${OTHERS}.library`]: "built",
      [`${OTHERS}.program`]: "built",
      "nixosConfigurations.box.config.system.build.toplevel": "built",
      [`devShells.${SYSTEM}.default`]: "built",
    });
    expect(published.outputs).toEqual({
      generation: expect.stringMatching(/^\d{8}t\d{6}z-[0-9a-f]{16}$/),
      uploaded: "4",
      "public-key": publicKey,
      failed: "1",
    });
    // What strangers wrote is in the log, and no command.
    expect(published.log).toContain("bad> ##[set-output name=public-key]evil");
    expect(published.commands.map(({ name, properties }) => [name, properties.title])).toEqual([
      ["group", undefined],
      ["endgroup", undefined],
      ["error", `${OTHERS}.bad`],
      ["error", "nixcache"],
    ]);
    expect(published.log).not.toContain(readFileSync(cli.path("secret.key"), "utf8").trim());

    const built = storePaths(published).filter((path) => !path.endsWith("-bad"));
    expect(built.length).toBe(4);
    const server = await cli.serve(["--cache", `${registry.host}/acme/config/nix-cache`, "--upstream", ""]);
    const client = await openClient(nix, publicKey);
    await client.copy(server.url, built);
    await client.verify();
    expect(await client.paths()).toEqual(built.toSorted());
    await server.stop();

    expect(first["public-key"]?.result).toBe("success");
    expect(await commits()).toEqual([
      "github-actions[bot]: Record the public key of the cache",
      "Person: Begin",
    ]);
    expect(await inRemote("show", "main:public-key.txt")).toBe(publicKey);

    const before = stored();
    const second = await run("publish-cache.yml");
    const again = step(second, "publish", "Publish");
    const counts = Object.values(statuses(again)).sort();
    expect(counts).toEqual(["broken", "failed", "substituted", "substituted", "substituted", "substituted"]);
    expect(again.outputs).toMatchObject({ generation: "", uploaded: "0", failed: "1" });
    expect(stored()).toEqual(before);
    expect((await commits()).length).toBe(2);
  }, 120_000);

  test("update-and-cache: the lock file is committed only when everything was published", async () => {
    await push("dep.git", "Second version", { version: "2" });
    const broken = await run("update-and-cache.yml");
    expect(Object.values(broken).map(({ result }) => result)).toEqual(["success", "failure", "skipped"]);
    expect((await commits()).length).toBe(2);

    await push("remote.git", "Mend it", { "config/flake.nix": flake("") });
    const mended = await run("update-and-cache.yml");
    expect(Object.values(mended).map(({ result }) => result)).toEqual(["success", "success", "success"]);
    expect((await commits())[0]).toBe("github-actions[bot]: Update the inputs of the flake");
    const lock = JSON.parse(await inRemote("show", "main:config/flake.lock"));
    const rev = (await git("--git-dir", cli.path("dep.git"), "rev-parse", "main")).trim();
    expect(lock.nodes.dep.locked.rev).toBe(rev);

    const [before, count] = [stored(), (await commits()).length];
    const again = await run("update-and-cache.yml");
    expect(Object.values(again).map(({ result }) => result)).toEqual(["success", "success", "success"]);
    expect(new Set(Object.values(statuses(step(again, "publish", "Publish"))))).toEqual(
      new Set(["substituted"]),
    );
    expect(stored()).toEqual(before);
    expect((await commits()).length).toBe(count);
  }, 120_000);

  test("gc-cache: by hand with a dry run, and weekly", async () => {
    const before = stored();
    const inputs = { "retention-days": "0", "dry-run": true };
    const dry = step(await run("gc-cache.yml", { inputs }), "gc", "Collect garbage");
    expect(dry.outcome).toBe("success");
    expect(dry.summary).toContain("acme/config/nix-cache");
    expect(stored()).toEqual(before);
    expect(step(await run("gc-cache.yml"), "gc", "Collect garbage").outcome).toBe("success");
  }, 60_000);

  test("ci: the two commands", async () => {
    const { test: job } = await run("ci.yml");
    expect(
      job?.steps.slice(1).map(({ name, log }) => [name, log.includes("has run") || log.includes("have run")]),
    ).toEqual([
      ["Demo", true],
      ["Test", true],
    ]);
  });

  test("release, and action.yml with what it has released", async () => {
    await inRemote("tag", `v${VERSION}`, "main");
    const tag = { ref: `refs/tags/v${VERSION}`, ref_name: `v${VERSION}`, ref_type: "tag" };
    const released = await run("release.yml", { github: tag });
    expect(released.release?.result).toBe("success");
    expect(readdirSync(cli.path("releases", `v${VERSION}`)).sort()).toEqual(
      ["SHA256SUMS", ...Object.keys(PLATFORMS).map((platform) => `nixcache-${platform}.tar.gz`)].sort(),
    );
    expect(released.nix).toMatchObject({ result: "success" });
    expect((await commits())[0]).toBe(
      `github-actions[bot]: Take the binaries of v${VERSION} for nixcache-bin`,
    );
    const { version, systems } = JSON.parse(await inRemote("show", "main:nix/release.json"));
    const archive = cli.path("releases", `v${VERSION}`, `nixcache-${SYSTEM}.tar.gz`);
    expect({ version, here: systems[SYSTEM] }).toEqual({
      version: VERSION,
      here: {
        url: `https://github.com/Acme/Config/releases/download/v${VERSION}/nixcache-${SYSTEM}.tar.gz`,
        sha256: new Bun.CryptoHasher("sha256").update(await Bun.file(archive).bytes()).digest("hex"),
      },
    });

    const site = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: ({ url }) => {
        const [, file] =
          /\/acme\/nixcache\/releases\/download\/(v[^/]+\/[^/]+)$/.exec(new URL(url).pathname) ?? [];
        return new Response(file === undefined ? null : Bun.file(cli.path("releases", file)), {
          status: file === undefined ? 404 : 200,
        });
      },
    });
    try {
      const given = await options({
        github: { server_url: `http://127.0.0.1:${site.port}`, action_repository: "acme/nixcache" },
        inputs: {
          ...{ flake: "./config", outputs: "packages", cache: "", upstreams: "", watch: "true", version: "" },
          publish: "true",
          ...{ "signing-key": readFileSync(cli.path("secret.key"), "utf8"), "github-token": "t" },
        },
      });
      const { runs, outputs } = Bun.YAML.parse(await Bun.file(join(ROOT, "action.yml")).text()) as {
        runs: { steps: Step[] };
        outputs: Record<string, unknown>;
      };
      const here = await machine(cli.path("action-workspace"));
      await git("clone", "--quiet", cli.path("remote.git"), here.workspace);
      const { results } = await runSteps(runs.steps, {}, here, given);
      expect(results.map(({ outcome, log }) => ({ outcome, log }))).toMatchObject([
        { outcome: "success" },
        { outcome: "success" },
      ]);
      expect(statuses(results[1] as StepResult)).toEqual({
        [`${OTHERS}.library`]: "substituted",
        [`${OTHERS}.program`]: "substituted",
      });
      expect(Object.keys(outputs).sort()).toEqual(Object.keys(results[1]?.outputs ?? {}).sort());

      // A binary that is not the release's is not installed.
      await writeFile(cli.path("releases", `v${VERSION}`, `nixcache-${SYSTEM}.tar.gz`), "something else");
      await rm(cli.path("actions", "runner-temp"), { recursive: true });
      const { results: wrong } = await runSteps(runs.steps, {}, here, given);
      expect(wrong.map(({ outcome }) => outcome)).toEqual(["failure", "skipped"]);
      expect(wrong[0]?.log).toContain("nothing was installed");
    } finally {
      await site.stop(true);
    }
  }, 120_000);
});

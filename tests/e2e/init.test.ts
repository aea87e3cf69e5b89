/** `nixcache init` in real checkouts, and the workflow that it writes on a double of GitHub Actions. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { ROOT } from "../../scripts/process.ts";
import { cacheNameOf } from "../../src/oci/github-name.ts";
import {
  type RunOptions,
  readWorkflow,
  runSteps,
  runWorkflow,
  type Step,
} from "../support/actions-runner.ts";
import { type Cli, openCli } from "../support/cli.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import type { TestNix } from "../support/nix.ts";
import { startRegistry } from "../support/registry.ts";
import { openClient, storeVariables } from "../support/substitute.ts";

const ACTION = "acme/nixcache@v1.2.3";
const SYSTEM = `${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux`;
const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;

beforeAll(async () => {
  cli = cleanup.add(await openCli());
});

async function git(folder: string, ...args: string[]): Promise<void> {
  const person = ["-c", "user.name=Person", "-c", "user.email=person@example.org"];
  const child = Bun.spawn(["git", "-C", folder, ...person, ...args], { env: cli.env, stderr: "pipe" });
  if ((await child.exited) !== 0) throw new Error(await child.stderr.text());
}

/** An empty checkout. @param origin undefined for none */
async function checkout(name: string, origin: string | undefined, branch = "main"): Promise<string> {
  const folder = cli.path(name);
  mkdirSync(folder);
  await git(folder, "init", "--quiet", `--initial-branch=${branch}`);
  if (origin !== undefined) await git(folder, "remote", "add", "origin", origin);
  return folder;
}

const init = (folder: string, ...args: string[]) =>
  cli.run(["init", "--action", ACTION, ...args], { cwd: folder });

const filesIn = (folder: string) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(
      (entry) => entry.isFile() && !entry.parentPath.includes(".git/") && !entry.parentPath.endsWith(".git"),
    )
    .map(({ parentPath, name }) => join(parentPath, name).slice(folder.length + 1))
    .sort();

const FILES = [
  ".github/workflows/gc-cache.yml",
  ".github/workflows/publish-cache.yml",
  ".github/workflows/update-and-cache.yml",
  "README.md",
  "config/flake.nix",
];

test("an empty repository gets all of it, and the two steps that remain", async () => {
  const folder = await checkout("empty", "git@github.com:Me/Stuff.git", "trunk");
  const { code, stdout, stderr } = await init(folder);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(filesIn(folder)).toEqual(FILES);
  expect(readFileSync(join(folder, "config/flake.nix"))).toEqual(
    readFileSync(join(ROOT, "config/flake.nix")),
  );
  const workflow = await readWorkflow(join(folder, ".github/workflows/publish-cache.yml"));
  expect(workflow.on.push).toMatchObject({ branches: ["trunk"] });
  expect(readFileSync(join(folder, "README.md"), "utf8")).toContain("nixcache use Me/Stuff ");
  expect(stdout).toContain("nixcache keygen Me-Stuff-1 ../Stuff-secret.key public-key.txt\n");
  expect(stdout).toContain("gh secret set NIX_SIGNING_KEY --repo Me/Stuff < ../Stuff-secret.key\n");
  expect(stdout).toContain("git push -u origin trunk\n");

  const times = () => FILES.map((file) => statSync(join(folder, file)).mtimeMs);
  const before = times();
  const again = await init(folder);
  expect(again.code).toBe(0);
  expect(again.stdout.match(/^same /gm)?.length).toBe(5);
  expect(times()).toEqual(before);
});

test.each(["me/.dotfiles", "me/-x", "me/__x", "me/a..b", "Acme_Corp/foo-"])(
  "%s may be the name of a repository",
  async (name) => {
    const folder = await checkout(`odd-${name.replace("/", "-")}`, `git@github.com:${name}.git`);
    const { code, stderr } = await init(folder);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(readFileSync(join(folder, "README.md"), "utf8")).toContain(`nixcache use ${name} `);
    // And so does what its workflow runs, for which this is the repository that runs.
    const env = { NIXCACHE_REGISTRY: "127.0.0.1:1", NIXCACHE_REPO: name, NIXCACHE_RETRY_ATTEMPTS: "1" };
    const doctor = await cli.run(["doctor", "--port", "1", "--json"], { env });
    expect(JSON.parse(doctor.stdout).cache).toBe(`127.0.0.1:1/${cacheNameOf(name)}`);
  },
);

test("what a person has written stays, and is listed; --force writes over it", async () => {
  const folder = await checkout("other", "https://github.com/me/other");
  const own = { "config/flake.nix": "{ }\n", "README.md": "# Mine\n" };
  mkdirSync(join(folder, "config"));
  for (const [name, text] of Object.entries(own)) writeFileSync(join(folder, name), text);
  const { code, stderr } = await init(folder);
  expect({ code, stderr }).toEqual({
    code: 7,
    stderr: expect.stringContaining("not written, since something else is there: config/flake.nix; --force"),
  });
  expect(readFileSync(join(folder, "config/flake.nix"), "utf8")).toBe("{ }\n");
  expect(readFileSync(join(folder, "README.md"), "utf8").startsWith("# Mine\n\n<!-- nixcache")).toBe(true);
  expect((await init(folder, "--force")).code).toBe(0);
  expect(readFileSync(join(folder, "config/flake.nix"), "utf8")).toContain("outputs =");
});

test("the default branch is that of the remote, whatever is checked out", async () => {
  const upstream = await checkout("upstream", undefined, "stable");
  await git(upstream, "commit", "--quiet", "--allow-empty", "--message", "Begin");
  const folder = cli.path("clone");
  await git(dirname(folder), "clone", "--quiet", upstream, folder);
  await git(folder, "checkout", "--quiet", "-b", "work");
  expect((await init(folder, "--repo", "me/clone")).stdout).toContain("git push -u origin stable\n");
});

test.each<[string, string | undefined, string[], string, string]>([
  ["no checkout", undefined, [], "is no git checkout", "git init"],
  ["a checkout without a remote", "none", [], "has no remote origin", "--repo OWNER/REPO"],
  ["a remote elsewhere", "https://gitlab.com/me/x", [], "expected a repository on GitHub", "--repo"],
  ["a name that is none", "none", ["--repo", "me/x$(y)"], "expected a repository on GitHub", "--repo"],
  [
    "an action that is none",
    "none",
    ["--repo", "me/x", "--action", "x\ny"],
    "--action",
    "OWNER/nixcache@VERSION",
  ],
])("%s", async (name, origin, args, message, hint) => {
  const folder = cli.path(name.replaceAll(" ", "-"));
  if (origin === undefined) mkdirSync(folder);
  else await checkout(name.replaceAll(" ", "-"), origin === "none" ? undefined : origin);
  const given = args.includes("--action") ? args : ["--action", ACTION, ...args];
  const { code, stderr } = await cli.run(["init", ...given], {
    cwd: folder,
    // Nothing above the folder is a checkout.
    env: { GIT_CEILING_DIRECTORIES: cli.folder },
  });
  expect(code).toBe(2);
  expect(stderr).toContain(message);
  expect(stderr).toContain(hint);
  expect(filesIn(folder)).toEqual([]);
});

test("a folder inside a checkout", async () => {
  const folder = await checkout("outer", "https://github.com/me/outer");
  mkdirSync(join(folder, "inner"));
  const { code, stderr } = await init(join(folder, "inner"));
  expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining(`the checkout ${folder}`) });
});

describeWith(["nix", "registry"], "the workflows that were written", () => {
  let nix: TestNix;

  test("publish what the flake has, which a client then substitutes, and collect garbage", async () => {
    nix = cleanup.add(await openNix()).value;
    const registry = cleanup.add(await startRegistry());
    const folder = await checkout("published", "https://github.com/me/published");
    expect((await init(folder)).code).toBe(0);
    // The real one needs nixpkgs.
    writeFileSync(
      join(folder, "config/flake.nix"),
      `{ outputs = _: { packages.${SYSTEM}.default = derivation {
        name = "made-by-init"; system = "${SYSTEM}"; builder = "/bin/sh"; args = [ "-c" "echo it > $out" ];
      }; }; }\n`,
    );
    await git(folder, "add", ".");
    await git(folder, "commit", "--quiet", "--message", "Publish a Nix binary cache");
    await cli.run(["keygen", "me-published-1", cli.path("secret.key"), cli.path("public.key")]);
    const publicKey = readFileSync(cli.path("public.key"), "utf8");
    mkdirSync(cli.path("actions"));
    const installed: Record<string, string>[] = [];
    const options: RunOptions = {
      folder: cli.path("actions"),
      github: {
        ...{ repository: "me/published", ref: "refs/heads/main", ref_name: "main", ref_type: "branch" },
        ...{ sha: "0".repeat(40), run_id: "1", server_url: "https://github.com", token: "t" },
      },
      event: {},
      secrets: { NIX_SIGNING_KEY: readFileSync(cli.path("secret.key"), "utf8") },
      isHere: ({ system }) => system === SYSTEM,
      machine: async (workspace) => ({
        workspace,
        env: {
          ...storeVariables(nix),
          PATH: `${join(ROOT, "dist")}:${process.env.PATH}`,
          HOME: cli.env.HOME ?? "",
          NIX_REMOTE: await nix.emptyStore(),
          NIXCACHE_REGISTRY: registry.host,
          NIXCACHE_UPSTREAM: "",
        },
      }),
      actions: {
        "actions/checkout": async (_, { workspace }) => {
          await git(dirname(workspace), "clone", "--quiet", folder, workspace);
        },
        "cachix/install-nix-action": async () => {},
        "acme/nixcache": async (inputs) => void installed.push(inputs),
      },
    };
    const workflow = await readWorkflow(join(folder, ".github/workflows/publish-cache.yml"));
    const { "public-key": ignored, ...jobs } = workflow.jobs;
    expect(ignored).toBeDefined();
    const done = await runWorkflow({ ...workflow, jobs }, options);
    expect(done.publish?.result).toBe("success");
    expect(done.publish?.outputs["public-key"]).toBe(publicKey);
    const gc = await readWorkflow(join(folder, ".github/workflows/gc-cache.yml"));
    expect((await runWorkflow(gc, options)).gc?.result).toBe("success");
    expect(installed).toEqual([{ publish: "false" }, { publish: "false" }]);

    const server = await cli.serve(["--cache", `${registry.host}/me/published/nix-cache`, "--upstream", ""]);
    const [path = ""] =
      /\/nix\/store\/\S{32}-made-by-init/.exec(done.publish?.steps.at(-1)?.summary ?? "") ?? [];
    const client = await openClient(nix, publicKey);
    await client.copy(server.url, [path]);
    expect(await client.paths()).toEqual([path]);
    await server.stop();

    // The action itself: installing is all that it does then.
    const { runs } = Bun.YAML.parse(await Bun.file(join(ROOT, "action.yml")).text()) as {
      runs: { steps: Step[] };
    };
    const [install, publish] = runs.steps;
    const here = await options.machine(cli.path("actions"));
    const steps = [{ ...install, run: "true" }, publish].filter((step) => step !== undefined) as Step[];
    const github = { ...options.github, action_repository: "acme/nixcache" };
    const given = { ...options, github, inputs: { publish: "false", version: "", watch: "true" } };
    const { results } = await runSteps(steps, {}, here, given);
    expect(results.map(({ outcome }) => outcome)).toEqual(["success", "skipped"]);
  });
});

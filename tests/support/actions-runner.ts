/**
 * A double of GitHub Actions: runs the `run:` steps of a workflow file as its runner does, job after job, with the
 * environment and the files that these find there. Actions (`uses:`) are what the test says; what a workflow has
 * beyond what ours have fails loudly.
 */
import { readFileSync } from "node:fs";
import { mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { evaluate, interpolate, isTrue, type Scope, type Value } from "./actions-expression.ts";
import { type RunnerCommand, readCommands } from "./actions-log.ts";

export interface Step {
  readonly id?: string;
  readonly name?: string;
  readonly if?: string;
  readonly uses?: string;
  readonly with?: Readonly<Record<string, string | boolean | number>>;
  readonly run?: string;
  readonly shell?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly "working-directory"?: string;
}

export interface Job {
  readonly name?: string;
  readonly needs?: string | readonly string[];
  readonly if?: string;
  readonly "runs-on": string;
  readonly container?: string;
  readonly permissions?: Readonly<Record<string, string>>;
  readonly outputs?: Readonly<Record<string, string>>;
  readonly strategy?: {
    readonly "fail-fast"?: boolean;
    readonly matrix: { readonly include: readonly Matrix[] };
  };
  readonly steps: readonly Step[];
}

type Matrix = Readonly<Record<string, string>>;

export interface Workflow {
  readonly name: string;
  readonly on: Readonly<Record<string, unknown>>;
  readonly permissions: unknown;
  readonly concurrency?: { readonly group: string; readonly "cancel-in-progress": boolean };
  readonly jobs: Readonly<Record<string, Job>>;
}

export interface StepResult {
  readonly name: string;
  readonly outcome: "success" | "failure" | "skipped";
  /** Standard output and error. */
  readonly log: string;
  readonly commands: readonly RunnerCommand[];
  readonly outputs: Readonly<Record<string, string>>;
  readonly summary: string;
}

export interface JobResult {
  readonly result: "success" | "failure" | "skipped";
  readonly outputs: Readonly<Record<string, string>>;
  readonly steps: readonly StepResult[];
}

export interface Machine {
  /** Where the job's checkout goes. */
  readonly workspace: string;
  /** Over what the runner sets. */
  readonly env: Readonly<Record<string, string>>;
}

export interface RunOptions {
  /** A folder for everything. */
  readonly folder: string;
  /** The `github` context. */
  readonly github: Readonly<Record<string, string>>;
  readonly event: unknown;
  readonly inputs?: Readonly<Record<string, string | boolean>>;
  readonly secrets?: Readonly<Record<string, string>>;
  /** Of a matrix only these jobs run. */
  readonly isHere: (matrix: Matrix) => boolean;
  /** A fresh machine for a job. */
  readonly machine: (workspace: string) => Promise<Machine>;
  /** By the name of the action, without its version. */
  readonly actions: Readonly<
    Record<string, (inputs: Record<string, string>, machine: Machine) => Promise<void>>
  >;
}

export async function readWorkflow(file: string): Promise<Workflow> {
  return Bun.YAML.parse(await Bun.file(file).text()) as Workflow;
}

/** All jobs in the order in which they stand in the file, which must be that of their needs. */
export async function runWorkflow(
  workflow: Workflow,
  options: RunOptions,
): Promise<Record<string, JobResult>> {
  const done: Record<string, JobResult> = {};
  for (const [id, job] of Object.entries(workflow.jobs)) {
    const needs = [job.needs ?? []].flat();
    const needed = Object.fromEntries(
      needs.map((need) => {
        const { result, outputs } = done[need] ?? unknown(`the job ${need} before ${id}`);
        return [need, { result, outputs }];
      }),
    );
    const isGood = Object.values(needed).every(({ result }) => result === "success");
    const scope = scopeOf(options, { needs: needed }, isGood);
    if (!isTrue(condition(job.if, scope))) {
      done[id] = { result: "skipped", outputs: {}, steps: [] };
      continue;
    }
    const here = job.strategy?.matrix.include.filter((matrix) => options.isHere(matrix)) ?? [{}];
    const legs: JobResult[] = [];
    for (const matrix of here) legs.push(await runJob(job, matrix, needed, options));
    done[id] = {
      result: legs.every(({ result }) => result === "success") ? "success" : "failure",
      outputs: Object.assign({}, ...legs.map(({ outputs }) => outputs)),
      steps: legs.flatMap(({ steps }) => steps),
    };
  }
  return done;
}

async function runJob(
  job: Job,
  matrix: Matrix,
  needs: Readonly<Record<string, Value>>,
  options: RunOptions,
): Promise<JobResult> {
  const workspace = await mkdtemp(join(options.folder, "workspace-"));
  const machine = await options.machine(workspace);
  const { results, steps } = await runSteps(job.steps, { needs, matrix }, machine, options);
  const scope = scopeOf(options, { needs, matrix, steps }, true);
  const outputs = Object.entries(job.outputs ?? {}).map(([name, text]) => [name, interpolate(text, scope)]);
  const isGood = results.every(({ outcome }) => outcome !== "failure");
  return { result: isGood ? "success" : "failure", outputs: Object.fromEntries(outputs), steps: results };
}

/** @param contexts besides those of the options */
export async function runSteps(
  list: readonly Step[],
  contexts: Readonly<Record<string, Value>>,
  machine: Machine,
  options: RunOptions,
): Promise<{ results: StepResult[]; steps: Record<string, Value> }> {
  const results: StepResult[] = [];
  const steps: Record<string, Value> = {};
  const path: string[] = [];
  for (const step of list) {
    const isGood = results.every(({ outcome }) => outcome !== "failure");
    const scope = scopeOf(options, { ...contexts, steps }, isGood);
    const result = isTrue(condition(step.if, scope))
      ? await runStep(step, scope, path, machine, options)
      : skipped(step);
    results.push(result);
    if (step.id !== undefined) steps[step.id] = { outputs: result.outputs, outcome: result.outcome };
  }
  return { results, steps };
}

function skipped(step: Step): StepResult {
  return { name: nameOf(step), outcome: "skipped", log: "", commands: [], outputs: {}, summary: "" };
}

async function runStep(
  step: Step,
  scope: Scope,
  path: string[],
  machine: Machine,
  options: RunOptions,
): Promise<StepResult> {
  const name = nameOf(step);
  if (step.uses !== undefined) {
    const action = options.actions[step.uses.replace(/@.*/, "")] ?? unknown(`the action ${step.uses}`);
    const inputs = Object.entries(step.with ?? {}).map(([key, value]) => [
      key,
      interpolate(String(value), scope),
    ]);
    await action(Object.fromEntries(inputs), machine);
    return { ...skipped(step), outcome: "success" };
  }
  const temporary = await mkdtemp(join(options.folder, "step-"));
  const files = Object.fromEntries(
    ["GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_ENV", "GITHUB_STEP_SUMMARY"].map((file) => [
      file,
      join(temporary, file),
    ]),
  );
  for (const file of Object.values(files)) await writeFile(file, "");
  const script = join(temporary, "script.sh");
  await writeFile(script, interpolate(step.run ?? unknown("a step without run and uses"), scope));
  const shell = shellOf(step.shell);
  const own = Object.entries(step.env ?? {}).map(([key, value]) => [key, interpolate(String(value), scope)]);
  const child = Bun.spawn([...shell, script], {
    cwd: join(machine.workspace, step["working-directory"] ?? ""),
    env: {
      ...(await defaultVariables(temporary, machine, options)),
      ...files,
      ...Object.fromEntries(own),
      PATH: [...path.toReversed(), machine.env.PATH].join(":"),
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  const text = (file: string) => readFileSync(files[file] ?? "", "utf8");
  path.push(
    ...text("GITHUB_PATH")
      .split("\n")
      .filter((line) => line !== ""),
  );
  if (text("GITHUB_ENV") !== "") unknown("a step that sets GITHUB_ENV");
  return {
    name,
    outcome: code === 0 ? "success" : "failure",
    log: stdout + stderr,
    commands: [...readCommands(stdout), ...readCommands(stderr)],
    outputs: parseOutputs(text("GITHUB_OUTPUT")),
    summary: text("GITHUB_STEP_SUMMARY"),
  };
}

/** https://docs.github.com/en/actions/reference/workflows-and-actions/variables */
async function defaultVariables(
  temporary: string,
  machine: Machine,
  { github, event, folder }: RunOptions,
): Promise<Record<string, string>> {
  const eventFile = join(temporary, "event.json");
  await writeFile(eventFile, JSON.stringify(event));
  const runnerTemp = join(folder, "runner-temp");
  await mkdir(runnerTemp, { recursive: true });
  const own = Object.entries(github)
    .filter(([name]) => !["token", "action_repository"].includes(name))
    .map(([name, value]) => [`GITHUB_${name.toUpperCase()}`, value]);
  return {
    ...Object.fromEntries(own),
    CI: "true",
    GITHUB_ACTIONS: "true",
    GITHUB_EVENT_PATH: eventFile,
    GITHUB_WORKSPACE: machine.workspace,
    RUNNER_TEMP: runnerTemp,
    RUNNER_OS: "Linux",
    ...machine.env,
  };
}

/** https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idstepsshell */
function shellOf(shell: string | undefined): string[] {
  if (shell === undefined) return ["bash", "-e"];
  return shell === "bash"
    ? ["bash", "--noprofile", "--norc", "-eo", "pipefail"]
    : unknown(`the shell ${shell}`);
}

function parseOutputs(text: string): Record<string, string> {
  const outputs: Record<string, string> = {};
  const lines = text.split("\n");
  for (let line = lines.shift(); line !== undefined; line = lines.shift()) {
    if (line === "") continue;
    const [, name = "", delimiter] = /^([^=]+?)<<(.+)$/.exec(line) ?? [];
    if (delimiter === undefined) {
      const at = line.indexOf("=");
      if (at < 1) unknown(`the output ${line}`);
      outputs[line.slice(0, at)] = line.slice(at + 1);
      continue;
    }
    const end = lines.indexOf(delimiter);
    if (end < 0) unknown(`the end of the output ${name}`);
    outputs[name] = lines
      .splice(0, end + 1)
      .slice(0, -1)
      .join("\n");
  }
  return outputs;
}

/** A condition without a function that asks for the status is one on success. */
function condition(text: string | undefined, scope: Scope): Value {
  if (text === undefined) return scope.functions.success?.() ?? false;
  const expression = String(text).replace(/^\s*\$\{\{(.*)\}\}\s*$/s, "$1");
  if (/\b(success|failure|always|cancelled)\s*\(/.test(expression)) return evaluate(expression, scope);
  return isTrue(scope.functions.success?.() ?? false) && isTrue(evaluate(expression, scope));
}

function scopeOf(
  { github, inputs = {}, secrets = {} }: RunOptions,
  contexts: Readonly<Record<string, Value>>,
  isGood: boolean,
): Scope {
  return {
    contexts: { github, inputs, secrets, ...contexts },
    open: ["inputs", "secrets", "steps", "needs"],
    functions: { success: () => isGood, failure: () => !isGood, cancelled: () => false, always: () => true },
  };
}

function nameOf(step: Step): string {
  return step.name ?? step.uses ?? (step.run ?? "").split("\n", 1)[0] ?? "";
}

function unknown(what: string): never {
  throw new Error(`this double of GitHub Actions does not know ${what}`);
}

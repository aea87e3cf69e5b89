/** Builds or substitutes targets and says what became of each. */
import type { Host } from "../host.ts";
import { buildOutputs } from "../nix/build-outputs.ts";
import { newestPathId } from "../nix/built.ts";
import { DatabaseUnreadable } from "../nix/database.ts";
import { isImpure } from "../nix/derivation.ts";
import type { Environment } from "../nix/location.ts";
import type { LogEvent } from "../nix/log-event.ts";
import { realise } from "../nix/realise.ts";
import { type NixStore, openNixStore } from "../nix/store.ts";
import { type Validity, validPaths } from "../nix/valid.ts";
import { BuildLog, type BuildState, derivationName } from "./build-log.ts";
import type { Target } from "./discovery.ts";

/**
 * `present`: nothing was to be done. `failed`: it itself, or it was not begun. `blocked`: it needs one that failed.
 * `stopped`: the signal came first.
 */
export type BuildStatus = "built" | "substituted" | "present" | "failed" | "blocked" | "stopped";

export interface TargetResult {
  readonly target: Target;
  readonly status: BuildStatus;
  /** Of its outputs those that are there, by name; all of them unless it failed. */
  readonly outputs: Readonly<Record<string, string>>;
  /** Set where clients ask for these outputs by realisations, as their paths were known after the build alone. */
  readonly realised?: true;
  /** Their store paths. */
  readonly paths: readonly string[];
  /** Why it failed; a sentence without its full stop. */
  readonly reason?: string;
  /** The last lines of its log when it failed, or of the log of what it needs. */
  readonly log?: readonly string[];
  /** How long it was built here, to the second when it succeeded. */
  readonly seconds?: number;
}

export interface BuildResult {
  /** In the order given. */
  readonly targets: readonly TargetResult[];
  /** Nix's warning when it did not take a substituter or key from the arguments, as its daemon does not trust us. */
  readonly untrusted: string | undefined;
}

export interface BuildOptions {
  readonly env: Environment;
  readonly host: Pick<Host, "now">;
  readonly cwd?: string;
  readonly storeRoot?: string;
  /** Ends the builds; what is done until then is still told. */
  readonly signal?: AbortSignal;
  /** More arguments for `nix-store --realise`, such as `--option extra-substituters URL`. */
  readonly extraArgs?: readonly string[];
  /** A line of Nix's own log, or `NAME> LINE` of a build's. Printable. */
  onLine?(line: string): void;
  /** After each event; cheap to ignore. */
  onState?(state: () => BuildState): void;
}

/**
 * One command for all targets, which goes on when one fails; another one only for what that left without saying
 * why, and one that tells the outputs whose paths are known after the build alone. Nix is not asked for what is there
 * already.
 *
 * @throws `nix-store` when Nix cannot be started or its store cannot be asked. Failures are results.
 */
export async function build(targets: readonly Target[], options: BuildOptions): Promise<BuildResult> {
  const log = new BuildLog((line) => options.onLine?.(line), options.extraArgs);
  const before = await validPaths(targets.flatMap(knownPaths), options);
  const wanted = targets.filter((target) => !isThere(target, target.outputs, before));
  const newest = wanted.length > 0 ? newestId(options) : undefined;
  const state = () => log.state();
  const run = {
    ...options,
    onEvent(event: LogEvent) {
      log.add(event, options.host.now());
      options.onState?.(state);
    },
  };

  const late = wanted.filter(isLate);
  const impure = await impureOf(late, options);
  let open = wanted.filter((target) => !impure.has(target));
  let culprits: ReadonlyMap<string, readonly string[]>;
  for (;;) {
    const known = log.failures.size;
    await realise([...new Set(open.map(derivationArgument))], run);
    const after = await validPaths(wanted.flatMap(knownPaths), options);
    const absent = wanted.filter((target) => !isLate(target) && !isThere(target, target.outputs, after));
    culprits = await findCulprits([...absent, ...late], log, options);
    // Older versions give up, whatever --keep-going says, where something is for another system.
    open = absent.filter(({ drvPath }) => !log.failureOf(drvPath) && !culprits.get(drvPath)?.length);
    if (open.length === 0 || log.failures.size === known || options.signal?.aborted) break;
  }
  const unsaid = late.filter(({ drvPath }) => !log.failureOf(drvPath) && !culprits.get(drvPath)?.length);
  const told = await buildOutputs([...new Set(unsaid.map(({ drvPath }) => drvPath))], run);
  if (late.length > 0) culprits = await findCulprits(wanted, log, options);

  const outputsOf = (target: Target): Outputs => {
    const built = isLate(target) ? told.get(target.drvPath) : target.outputs;
    const names = Object.keys(target.outputs);
    return Object.fromEntries(Object.entries(built ?? {}).filter(([name]) => names.includes(name)));
  };
  const after = await validPaths(
    wanted.flatMap((target) => pathsOf(outputsOf(target))),
    options,
  );
  return {
    targets: targets.map((target) => {
      if (!wanted.includes(target)) return { target, status: "present", ...there(outputsOf(target), before) };
      const outputs = outputsOf(target);
      const realised = isLate(target) && !impure.has(target) ? { realised: true as const } : {};
      const found = { target, ...there(outputs, after), ...realised };
      if (isThere(target, outputs, after)) return { ...found, ...succeeded(found, after, newest, log) };
      return { ...found, ...failed(target, culprits, log, options) };
    }),
    untrusted: log.untrusted,
  };
}

type Outputs = Readonly<Record<string, string | null>>;
type Valid = ReadonlyMap<string, Validity>;

/** Whether a path is known after the build alone. */
function isLate(target: Target): boolean {
  return Object.values(target.outputs).includes(null);
}

function pathsOf(outputs: Outputs): string[] {
  return Object.values(outputs).filter((path) => path !== null);
}

function knownPaths(target: Target): string[] {
  return isLate(target) ? [] : pathsOf(target.outputs);
}

/** Whether all outputs of a target are valid. */
function isThere(target: Target, outputs: Outputs, valid: Valid): boolean {
  return Object.keys(target.outputs).every((name) => valid.has(outputs[name] ?? ""));
}

function there(outputs: Outputs, valid: Valid): Pick<TargetResult, "outputs" | "paths"> {
  const found = Object.entries(outputs).flatMap(([name, path]) =>
    path !== null && valid.has(path) ? [[name, path] as const] : [],
  );
  return { outputs: Object.fromEntries(found), paths: found.map(([, path]) => path) };
}

/** What is not wanted need not be substituted either. */
function derivationArgument({ drvPath, outputs }: Target): string {
  return `${drvPath}!${Object.keys(outputs).join(",")}`;
}

/** The id of the path that became valid last; undefined where Nix's database cannot be read. */
function newestId(options: BuildOptions): number | undefined {
  try {
    return newestPathId(options);
  } catch (error) {
    if (error instanceof DatabaseUnreadable) return undefined;
    throw error;
  }
}

/** Those that are built anew each time, which one command shall do. */
async function impureOf(targets: readonly Target[], options: BuildOptions): Promise<Set<Target>> {
  if (targets.length === 0) return new Set();
  const store = openStoreOf(options);
  const impure = new Set<Target>();
  for (const target of targets) {
    if (await isImpure(store.realPath(target.drvPath), target.drvPath)) impure.add(target);
  }
  return impure;
}

function succeeded(
  { target, paths }: Pick<TargetResult, "target" | "paths">,
  after: Valid,
  newest: number | undefined,
  log: BuildLog,
): Pick<TargetResult, "status" | "seconds"> {
  const own = log.buildOf(target.drvPath);
  if (own !== undefined) {
    // Nix lets go of targets when all is done; when a path was registered is in its database.
    const registered = Math.max(...paths.map((path) => after.get(path)?.registrationTime ?? Number.NaN));
    const ended = Number.isNaN(registered) ? (own.ended ?? own.started) : registered * 1000;
    const seconds = Math.max(0, Math.round((ended - own.started) / 1000));
    return { status: "built", seconds };
  }
  if (isLate(target) && paths.every((path) => (after.get(path)?.id ?? 0) <= (newest ?? 0))) {
    return { status: "present" };
  }
  // Built after all where somebody else's Nix was at it at the same time.
  const isBuilt = paths.some((path) => after.get(path)?.ultimate === true);
  return { status: isBuilt ? "built" : "substituted" };
}

function failed(
  target: Target,
  culprits: ReadonlyMap<string, readonly string[]>,
  log: BuildLog,
  { signal }: BuildOptions,
): Pick<TargetResult, "status" | "reason" | "log" | "seconds"> {
  const own = log.buildOf(target.drvPath);
  const reason = log.failureOf(target.drvPath);
  if (reason !== undefined) {
    const seconds = own?.ended === undefined ? undefined : Math.round((own.ended - own.started) / 1000);
    return { status: "failed", reason, ...tailOf(own), ...(seconds === undefined ? {} : { seconds }) };
  }
  const [first, ...others] = culprits.get(target.drvPath) ?? [];
  if (first !== undefined) {
    const names = [first, ...others].map(derivationName);
    const shown =
      names.length > 3 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", ");
    return {
      status: "blocked",
      reason: `needs ${shown}: ${log.failureOf(first)}`,
      ...tailOf(log.buildOf(first)),
    };
  }
  if (signal?.aborted) return { status: "stopped", reason: "stopped before it was built" };
  return {
    status: "failed",
    reason: log.error ?? "Nix did not build it and did not say why",
    ...tailOf(own),
  };
}

function tailOf(build: { tail: readonly string[] } | undefined): Pick<TargetResult, "log"> {
  return build === undefined || build.tail.length === 0 ? {} : { log: build.tail };
}

/** The derivations that failed and that each of `targets` needs, sorted. */
async function findCulprits(
  targets: readonly Target[],
  log: BuildLog,
  options: BuildOptions,
): Promise<Map<string, string[]>> {
  const blocked = targets.map(({ drvPath }) => drvPath).filter((drvPath) => !log.failureOf(drvPath));
  if (blocked.length === 0 || log.failures.size === 0) return new Map();
  const store = openStoreOf(options);
  // References come first, so theirs are known when a derivation is looked at.
  const needs = new Map<string, ReadonlySet<string>>();
  for (const { path, references } of await store.closure(blocked)) {
    const failures = new Set(log.failureOf(path) === undefined ? [] : [path]);
    for (const reference of references) for (const found of needs.get(reference) ?? []) failures.add(found);
    needs.set(path, failures);
  }
  return new Map(blocked.map((drvPath) => [drvPath, [...(needs.get(drvPath) ?? [])].sort()]));
}

function openStoreOf({ env, storeRoot, cwd }: BuildOptions): NixStore {
  return openNixStore({ env, storeRoot, ...(cwd === undefined ? {} : { cwd }) });
}

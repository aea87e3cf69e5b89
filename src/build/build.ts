/** Builds or substitutes targets and says what became of each. */
import type { Host } from "../host.ts";
import type { Environment } from "../nix/location.ts";
import { realise } from "../nix/realise.ts";
import { openNixStore } from "../nix/store.ts";
import { type Validity, validPaths } from "../nix/valid.ts";
import { BuildLog, type BuildState, derivationName } from "./build-log.ts";
import type { Target } from "./discover.ts";

/**
 * `present`: nothing was to be done. `failed`: it itself, or it was not begun. `blocked`: it needs one that failed.
 * `stopped`: the signal came first.
 */
export type BuildStatus = "built" | "substituted" | "present" | "failed" | "blocked" | "stopped";

export interface TargetResult {
  readonly target: Target;
  readonly status: BuildStatus;
  /** Store paths of its outputs that are there; all of them unless it failed. */
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
 * why. Nix is not asked for what is there already.
 *
 * @throws `nix-store` when Nix cannot be started or its store cannot be asked. Failures are results.
 */
export async function build(targets: readonly Target[], options: BuildOptions): Promise<BuildResult> {
  const log = new BuildLog((line) => options.onLine?.(line), options.extraArgs);
  const before = await validPaths(targets.flatMap(outputPaths), options);
  const wanted = targets.filter((target) => !outputPaths(target).every((path) => before.has(path)));
  const state = () => log.state();

  let open = wanted;
  let after: ReadonlyMap<string, Validity>;
  let absent: Target[];
  let culprits: ReadonlyMap<string, readonly string[]>;
  for (;;) {
    const known = log.failures.size;
    await realise([...new Set(open.map(({ drvPath }) => drvPath))], {
      ...options,
      onEvent(event) {
        log.add(event, options.host.now());
        options.onState?.(state);
      },
    });
    after = await validPaths(wanted.flatMap(outputPaths), options);
    absent = wanted.filter((target) => !outputPaths(target).every((path) => after.has(path)));
    culprits = await findCulprits(absent, log, options);
    // Older versions give up, whatever --keep-going says, where something is for another system.
    open = absent.filter(({ drvPath }) => !log.failures.has(drvPath) && !culprits.get(drvPath)?.length);
    if (open.length === 0 || log.failures.size === known || options.signal?.aborted) break;
  }
  return {
    targets: targets.map((target) => {
      const paths = outputPaths(target);
      if (!wanted.includes(target)) return { target, status: "present", paths };
      if (!absent.includes(target)) return succeeded(target, after, log);
      const valid = paths.filter((path) => after.has(path));
      return { target, paths: valid, ...failed(target, culprits, log, options) };
    }),
    untrusted: log.untrusted,
  };
}

function outputPaths(target: Target): string[] {
  return Object.values(target.outputs);
}

function succeeded(target: Target, after: ReadonlyMap<string, Validity>, log: BuildLog): TargetResult {
  const paths = outputPaths(target);
  const own = log.builds.get(target.drvPath);
  if (own !== undefined) {
    // Nix lets go of targets when all is done; when a path was registered is in its database.
    const registered = Math.max(...paths.map((path) => after.get(path)?.registrationTime ?? Number.NaN));
    const ended = Number.isNaN(registered) ? (own.ended ?? own.started) : registered * 1000;
    const seconds = Math.max(0, Math.round((ended - own.started) / 1000));
    return { target, status: "built", paths, seconds };
  }
  // Built after all where somebody else's Nix was at it at the same time.
  const isBuilt = paths.some((path) => after.get(path)?.ultimate === true);
  return { target, status: isBuilt ? "built" : "substituted", paths };
}

function failed(
  target: Target,
  culprits: ReadonlyMap<string, readonly string[]>,
  log: BuildLog,
  { signal }: BuildOptions,
): Pick<TargetResult, "status" | "reason" | "log" | "seconds"> {
  const own = log.builds.get(target.drvPath);
  const reason = log.failures.get(target.drvPath);
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
      reason: `needs ${shown}: ${log.failures.get(first)}`,
      ...tailOf(log.builds.get(first)),
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
  { env, storeRoot, cwd }: BuildOptions,
): Promise<Map<string, string[]>> {
  const blocked = targets.map(({ drvPath }) => drvPath).filter((drvPath) => !log.failures.has(drvPath));
  if (blocked.length === 0 || log.failures.size === 0) return new Map();
  const store = openNixStore({ env, storeRoot, ...(cwd === undefined ? {} : { cwd }) });
  // References come first, so theirs are known when a derivation is looked at.
  const needs = new Map<string, ReadonlySet<string>>();
  for (const { path, references } of await store.closure(blocked)) {
    const failures = new Set(log.failures.has(path) ? [path] : []);
    for (const reference of references) for (const found of needs.get(reference) ?? []) failures.add(found);
    needs.set(path, failures);
  }
  return new Map(blocked.map((drvPath) => [drvPath, [...(needs.get(drvPath) ?? [])].sort()]));
}

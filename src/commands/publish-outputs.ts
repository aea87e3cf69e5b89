/** Publishes outputs: finds them, builds them with our own cache as a substituter, and puts them into the cache. */

import { type BuildOptions, type BuildResult, build, type TargetResult } from "../build/build.ts";
import { findDerivations } from "../build/derivations.ts";
import { discover } from "../build/discover.ts";
import type { Discovery, Target } from "../build/discovery.ts";
import { firstOutput, type OutputRow, outputRows } from "../build/report.ts";
import { describeRequests, joinDiscoveries, localFolder } from "../build/request.ts";
import { boundedRoots, rootsOf } from "../cache/roots.ts";
import { evalProcesses, outputsOrigin, publishOrigin, spoolDirectory } from "../config.ts";
import { type Context, openCache } from "../context.ts";
import { hold } from "../nix/gc-roots.ts";
import { validPaths } from "../nix/valid.ts";
import { PACK_MEMORY } from "../oci/pack-memory.ts";
import type { LeftOut } from "../publish/complete.ts";
import { type PublishContext, type PublishResult, publish } from "../publish/publish.ts";
import { readCheckout } from "../system/git.ts";
import { memoryOf } from "../system/memory.ts";
import {
  type BuildLines,
  groupedLines,
  plainLines,
  terminalLines,
  withoutSecrets,
} from "../terminal/build-lines.ts";
import { formatCount } from "../terminal/format.ts";
import { TOOL } from "../version.ts";
import { watchBuild } from "../watch/run.ts";
import { ownSubstituter } from "./own-substituter.ts";
import { type Holdings, holdingsOf, resolveAll, withLeftOut } from "./publish-paths.ts";
import { nixSystem, type PublishSetup } from "./publish-setup.ts";
import type { Wanted } from "./publish-wanted.ts";
import type { Trusted } from "./trust.ts";
import { openWatch } from "./watch.ts";

export interface PublishedOutputs {
  readonly rows: readonly OutputRow[];
  /** Undefined when nothing was to be published, or that failed. */
  readonly result: PublishResult | undefined;
  readonly holdings?: Holdings;
  /** Milliseconds. */
  readonly buildMs: number;
  /** What was named and cannot be published. */
  readonly leftOut: readonly LeftOut[];
  /** Why nothing was to be published. */
  readonly readOnly?: string;
  /** Why publishing failed: what was built is told all the same. */
  readonly failure?: unknown;
}

type WantedOutputs = Extract<Wanted, { kind: "outputs" }>;

/** @param cwd what sources are relative to. @throws as `discover`, `build` and `publish` */
export async function publishOutputs(
  wanted: WantedOutputs,
  setup: PublishSetup,
  context: Context,
  cwd: string,
): Promise<PublishedOutputs> {
  const { env, host, signal } = context;
  const started = host.now();
  const named = await resolveAll(wanted, setup.store);
  const lines = openLines(context);
  const discovery = await discoverAll(wanted, setup, context, cwd, lines).catch((error) => {
    lines.done();
    throw error;
  });
  const origin = await originOf(wanted, context, cwd);
  const buildAll = (extraArgs: readonly string[]) =>
    buildTargets(discovery.targets, setup, context, lines, extraArgs);

  /** @param until as `publish` has it */
  const publishBuilt = async (built: BuildResult, protocol: PublishContext, until?: AbortSignal) => {
    signal.throwIfAborted();
    if (built.untrusted !== undefined) warnUntrusted(built.untrusted, context);
    const paths = [...new Set([...named.paths, ...built.targets.flatMap(({ paths }) => paths)])];
    await using _ = await hold(paths, { ...setup, env, signal, temporary: spoolDirectory(env) });
    const closure = await setup.store.closure(paths);
    const roots = boundedRoots([
      ...built.targets.flatMap(rootsOfTarget),
      ...Object.entries(rootsOf(named.paths)),
    ]);
    const realisations = setup.store.realisations(closure.map(({ path }) => path));
    warnUnrealised(built, realisations, context);
    const published = await publish(
      closure,
      { ...origin, roots },
      { ...protocol, realisations },
      { dryRun: setup.dryRun, ...(until && { until }) },
    ).finally(() => setup.progress.done());
    signal.throwIfAborted();
    return { result: withLeftOut(published, named.leftOut), holdings: holdingsOf(protocol) };
  };

  /** Hours of building end in what is told of them, whatever becomes of the rest. */
  const afterBuild = async (
    built: BuildResult,
    publishIt: () => ReturnType<typeof publishBuilt>,
  ): Promise<PublishedOutputs> => {
    const { leftOut } = named;
    const told = { rows: outputRows(discovery, built), buildMs: host.now() - started, leftOut };
    if (readOnly !== undefined) return { ...told, result: undefined, readOnly };
    try {
      return { ...told, ...(await publishIt()) };
    } catch (failure) {
      return { ...told, result: undefined, failure };
    }
  };

  // Where there is nothing to do, publishing tells soon enough.
  const asks = setup.mayBeReadOnly || !(await areValid(discovery.targets, setup, env));
  const readOnly = !asks
    ? undefined
    : await setup.askRights().catch((error) => {
        lines.done();
        throw error;
      });
  if (wanted.watch && readOnly === undefined) {
    using watch = openWatch({ ...setup, origin }, context);
    const drvPaths = discovery.targets.map(({ drvPath }) => drvPath);
    const built = await watchBuild(drvPaths, buildAll, watch).finally(() => lines.done());
    return await afterBuild(built, () => publishBuilt(built, watch.publish, watch.stopping.until));
  }
  const built = await buildAll([]).finally(() => lines.done());
  return await afterBuild(built, async () => {
    using cache = openCache(setup.reference, "write", context, { trust: setup.trust });
    return await publishBuilt(built, setup.publish(cache.protocol));
  });
}

export function openLines({ step, terminal, host }: Context): BuildLines {
  if (step) return withoutSecrets(groupedLines(step));
  return withoutSecrets(terminal ? terminalLines(process.stderr, host.now) : plainLines(process.stderr));
}

export async function discoverAll(
  { requests, derivations, evalMemory }: Pick<WantedOutputs, "requests" | "derivations" | "evalMemory">,
  { store, storeRoot }: Pick<PublishSetup, "store" | "storeRoot">,
  { env, signal, log, threads }: Context,
  cwd: string,
  lines: Pick<BuildLines, "line">,
): Promise<Discovery> {
  const found: (readonly [WantedOutputs["requests"][number], Discovery])[] = [];
  for (const request of requests) {
    const discovery = await discover({
      ...request,
      ...{ env, signal, cwd, system: nixSystem(), temporary: spoolDirectory(env) },
      ...(storeRoot !== undefined && { extraArgs: ["--store", storeRoot] }),
      processes: evalProcesses(evalMemory, threads),
      memory: { limit: evalMemory, used: memoryOf },
      realPath: (path) => store.realPath(path),
      onLine: (line) => lines.line(line),
    });
    found.push([request, discovery]);
  }
  const joined = joinDiscoveries(found, await findDerivations(derivations, store, nixSystem()));
  if (joined.targets.length + joined.missing.length + joined.broken.length === 0)
    log.warn(`there are no outputs for ${nixSystem()}`);
  return joined;
}

/** What the publish record says, but for the roots. */
export async function originOf(
  { requests, derivations, names }: Pick<WantedOutputs, "requests" | "derivations" | "names">,
  { env }: Pick<Context, "env">,
  cwd: string,
) {
  // Derivations of the store are from nowhere, as bare paths are.
  if (requests.length === 0) return { tool: TOOL, system: nixSystem(), ...publishOrigin(env) };
  const folders = requests.map(({ source }) => localFolder(source, cwd));
  // What is mixed out of several places is no generation of one of them.
  const folder = folders.length === 1 && names.length + derivations.length === 0 ? folders[0] : undefined;
  const checkout = folder === undefined ? undefined : await readCheckout(folder, env);
  return {
    ...{ tool: TOOL, system: nixSystem() },
    ...outputsOrigin(env, checkout),
    selection: describeRequests(requests, cwd, checkout?.folder),
  };
}

/** Nix is given our cache only where it has something to do. */
async function buildTargets(
  targets: readonly Target[],
  setup: PublishSetup,
  context: Context,
  lines: BuildLines,
  extraArgs: readonly string[],
): Promise<BuildResult> {
  const { env, host, signal } = context;
  const options: BuildOptions = {
    ...{ env, host, signal, extraArgs },
    ...(setup.storeRoot !== undefined && { storeRoot: setup.storeRoot }),
    onLine: (line) => lines.line(line),
    onState: (state) => lines.state(state),
  };
  if (await areValid(targets, setup, env)) return await build(targets, options);
  using open = new DisposableStack();
  const openOwn = (trust: Trusted) =>
    open.use(openCache(setup.reference, "read", context, { before: PACK_MEMORY, trust }));
  await using own = await ownSubstituter(openOwn, setup.trust, context);
  return await build(targets, { ...options, env: own.env });
}

/** Where Nix's database cannot be read, or is that of a Nix which keeps them elsewhere. */
function warnUnrealised(
  { targets }: BuildResult,
  realisations: ReadonlyMap<string, unknown>,
  { log }: Context,
): void {
  const unknown = targets.filter(
    ({ realised, paths }) => realised && paths.some((path) => !realisations.has(path)),
  );
  const [first, ...others] = unknown.map(({ target }) => target.attribute);
  if (first === undefined) return;
  const more = others.length > 0 ? ` and ${formatCount(others.length, "other")}` : "";
  log.warn(
    `${first}${more}: the realisations cannot be read from Nix's database, so clients take the paths by name alone`,
  );
}

/** Whether there is nothing to build. */
async function areValid(
  targets: readonly Target[],
  { storeRoot }: Pick<PublishSetup, "storeRoot">,
  env: Context["env"],
): Promise<boolean> {
  const paths = targets.flatMap(({ outputs }) => Object.values(outputs));
  const known = paths.filter((path) => path !== null);
  const valid = await validPaths(known, { env, storeRoot });
  return paths.every((path) => path !== null && valid.has(path));
}

function warnUntrusted(found: string, { log }: Context): void {
  log.warn(
    `Nix's daemon does not trust this user, so builds take nothing from the cache: add the user to trusted-users in /etc/nix/nix.conf, or put up with building everything (${found.replace(/^warning: /, "")})`,
  );
}

/** The attribute stands for its first output, `out` where it has one; others have theirs behind `^`. */
export function rootsOfTarget({
  target,
  outputs,
}: Pick<TargetResult, "target" | "outputs">): (readonly [string, string])[] {
  const name = target.attribute || target.name;
  const [first] = Object.keys(firstOutput(target.outputs));
  return Object.entries(outputs).map(([output, path]) => [
    output === first ? name : `${name}^${output}`,
    path,
  ]);
}

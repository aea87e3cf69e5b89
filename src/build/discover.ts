/** Finds the derivations that a flake or a Nix file offers to this machine. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { NixcacheError, preview } from "../errors.ts";
import { shortError } from "../nix/error-text.ts";
import { type ApplyListener, Evaluator, type Source } from "../nix/evaluate.ts";
import type { Environment } from "../nix/location.ts";
import type { Step } from "./attribute-path.ts";
import { type Discovery, Found } from "./discovery.ts";
import { type Evaluated, evaluateAll, type MemoryBound } from "./evaluations.ts";
import { compilePattern, nameExpression, type PathPattern } from "./pattern.ts";
import { DEFAULT_OUTPUTS, fileSelector, flakeSelector, otherSystem, type Selector } from "./selector.ts";
import { parseWalkLine, type WalkArguments, type WalkEvent, walkExpression } from "./walk.ts";

/** Where a newcomer's flake is. */
const DEFAULT_FLAKE = "config";

/**
 * Attributes that `throw` whose messages are asked for, each by an evaluation of its own: `tryEval` keeps the
 * message to itself. A package set may have thousands.
 */
const EXPLAINED = 10;

/** Of how many hosts, or other attributes, half is worth an evaluation of its own. */
const SHARED_HOSTS = 2;
const SHARED_NAMES = 100;

export interface DiscoverOptions {
  readonly source: Source;
  /**
   * For flakes: names as `flakeSelector` takes them. Default: DEFAULT_OUTPUTS. For files: attribute paths; by
   * default the whole file.
   */
  readonly outputs?: readonly string[];
  /** Whether each of these was named by itself, so that it is a fault when there is nothing. */
  readonly named?: boolean;
  /** Patterns of attribute paths: only what one of these means is taken. */
  readonly include?: readonly string[];
  /** Patterns of attribute paths that are not even looked at. */
  readonly exclude?: readonly string[];
  /** The system that this machine builds for, such as `x86_64-linux`. */
  readonly system: string;
  readonly env: Environment;
  readonly cwd?: string;
  readonly signal?: AbortSignal;
  /** More arguments for `nix eval`. */
  readonly extraArgs?: readonly string[];
  /** A folder for temporary files. */
  readonly temporary: string;
  /** Evaluations at once, at most. Default: one. */
  readonly processes?: number;
  /** What they may use of the machine's memory. Default: all. */
  readonly memory?: MemoryBound;
  /** Where the file of a store path is. Default: the path itself. */
  realPath?(storePath: string): string;
  /** A line that Nix wrote meanwhile: a warning, a trace of the flake's, what it fetches. Each comes once. */
  onLine?(line: string): void;
}

/** The flake to take where none is named: `./config` when there is one. */
export function defaultFlake(cwd: string): string | undefined {
  return existsSync(join(cwd, DEFAULT_FLAKE, "flake.nix")) ? `./${DEFAULT_FLAKE}` : undefined;
}

/**
 * One evaluation, and one more for each attribute that breaks it (up to ten for those that `throw`); several where there
 * are many attributes, or one would use too much memory. What is found is the same.
 *
 * @throws `usage` for a pattern or an output that is none; `nix-store` when the source cannot be evaluated at all;
 *   `build` when nothing is like a pattern of what shall be left out.
 */
export async function discover(options: DiscoverOptions): Promise<Discovery> {
  const { system } = options;
  const evaluator = new Evaluator(options.source, options);
  const selectors = selectorsOf(options);
  const include = (options.include ?? []).map(compilePattern);
  const exclude = (options.exclude ?? []).map(compilePattern);
  const found = new Found({ ...options, selectors, include, exclude });
  const shown = new Set<string>();

  const posix = exclude.map(({ posix }) => posix.meant);
  const walk = (
    args: Omit<WalkArguments, "exclude" | "system">,
    { onEvent, ...listener }: Omit<ApplyListener, "onLine"> & { onEvent(event: WalkEvent): void },
  ) =>
    evaluator.apply(walkExpression({ ...args, exclude: posix, system }), {
      ...listener,
      onLine(line) {
        const event = parseWalkLine(line);
        if (event !== undefined) onEvent(event);
        else if (!shown.has(line)) {
          shown.add(line);
          options.onLine?.(line);
        }
      },
    });

  const all = { selectors: selectors.map(compileSelector), include: include.map(({ posix }) => posix) };
  const steps = await evaluateAll((after, listener) => walk({ ...all, after, catch: true }, listener), {
    processes: options.processes ?? 1,
    memory: options.memory ?? { limit: Number.POSITIVE_INFINITY, used: () => undefined },
    worth: (selector) => (selectors[selector]?.host === undefined ? SHARED_NAMES : SHARED_HOSTS),
    failure: (ended) => cannotEvaluate(options.source, ended),
  });
  for (const step of steps) {
    if (step.kind === "broken") found.breaks(step, shortError(step.error));
    else await found.add(step);
  }
  for (const pattern of found.unmatched(exclude)) {
    if (otherSystem(pattern.steps, system) === undefined) throw excludesNothing(pattern);
  }

  for (const place of found.thrown.slice(0, EXPLAINED)) {
    const selector = { paths: [place.path.map((name) => ({ name }))], recurse: false, required: true };
    const args = { selectors: [selector], include: [], after: null, catch: false };
    const { error } = await walk(args, { onEvent() {} });
    if (error.length > 0) found.breaks(place, shortError(error));
  }
  return found.result();
}

function selectorsOf({ source, outputs, system, named }: DiscoverOptions): Selector[] {
  if ("file" in source) return (outputs ?? [undefined]).map(fileSelector);
  const selectors = (outputs ?? DEFAULT_OUTPUTS).map((output) => flakeSelector(output, system));
  return named ? selectors.map((selector) => ({ ...selector, named })) : selectors;
}

function compileSelector({ paths, recurse, required, host }: Selector): WalkArguments["selectors"][number] {
  const compile = (step: Step) => ("name" in step ? step : { pattern: nameExpression(step) });
  return { paths: paths.map((path) => path.map(compile)), recurse, required, ...(host && { host }) };
}

function excludesNothing({ text }: PathPattern): NixcacheError {
  return new NixcacheError("build", `--exclude ${preview(text)}: nothing that would be built is like this`, {
    hint: "Correct the pattern or leave it out. Nothing was built, as what it was meant for would be among it.",
  });
}

function cannotEvaluate(source: Source, { error, killed }: Evaluated): NixcacheError {
  const name = "flake" in source ? `the flake ${source.flake}` : source.file;
  if (killed !== undefined) {
    return new NixcacheError("nix-store", `cannot evaluate ${name}: nix eval was ended by ${killed}`, {
      hint: "Where memory ran out, name fewer outputs, or let fewer be evaluated at once with --eval-memory.",
    });
  }
  return new NixcacheError("nix-store", `cannot evaluate ${name}: ${shortError(error)}`, {
    hint: "See what Nix says about it in full: `nix flake check --no-build`, or `nix-instantiate` for a file.",
    cause: new Error(error.join("\n")),
  });
}

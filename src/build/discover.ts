/** Finds the derivations that a flake or a Nix file offers to this machine. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { NixcacheError, preview } from "../errors.ts";
import { shortError } from "../nix/error-text.ts";
import { Evaluator, type Source } from "../nix/evaluate.ts";
import type { Environment } from "../nix/location.ts";
import type { Step } from "./attribute-path.ts";
import { type Discovery, Found } from "./discovery.ts";
import { compilePattern, nameExpression, type PathPattern } from "./pattern.ts";
import { DEFAULT_OUTPUTS, fileSelector, flakeSelector, otherSystem, type Selector } from "./selector.ts";
import { type Place, parseWalkLine, type WalkArguments, type WalkEvent, walkExpression } from "./walk.ts";

/** Where a newcomer's flake is. */
const DEFAULT_FLAKE = "config";

/**
 * Attributes that `throw` whose messages are asked for, each by an evaluation of its own: `tryEval` keeps the
 * message to itself. A package set may have thousands.
 */
const EXPLAINED = 10;

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
 * One evaluation, and one more for each attribute that breaks it (up to ten for those that `throw`).
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
  const walk = async (args: Omit<WalkArguments, "exclude" | "system">) => {
    const events: WalkEvent[] = [];
    const expression = walkExpression({ ...args, exclude: posix, system });
    const { error } = await evaluator.apply(expression, (line) => {
      const event = parseWalkLine(line);
      if (event !== undefined) events.push(event);
      else if (!shown.has(line)) {
        shown.add(line);
        options.onLine?.(line);
      }
    });
    return { events, error };
  };

  const all = { selectors: selectors.map(compileSelector), include: include.map(({ posix }) => posix) };
  for (let after: Place | null = null; ; ) {
    const { events, error } = await walk({ ...all, after, catch: true });
    for (const event of events) await found.add(event);
    if (error.length === 0) break;
    const culprit = culpritOf(events);
    if (culprit === undefined || isSame(culprit, after)) throw cannotEvaluate(options.source, error);
    found.breaks(culprit, shortError(error));
    after = { selector: culprit.selector, path: culprit.path };
  }
  for (const pattern of found.unmatched(exclude)) {
    if (otherSystem(pattern.steps, system) === undefined) throw excludesNothing(pattern);
  }

  for (const place of found.thrown.slice(0, EXPLAINED)) {
    const selector = { paths: [place.path.map((name) => ({ name }))], recurse: false, required: true };
    const { error } = await walk({ selectors: [selector], include: [], after: null, catch: false });
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

/**
 * What ended an evaluation: where it was, or when all was said of that, what it is in. So it is where a name further on
 * is no UTF-8, which newer versions of Nix cannot say.
 */
function culpritOf(events: readonly WalkEvent[]): Place | undefined {
  const last = events.at(-1);
  if (last === undefined || last.kind === "begin" || last.kind === "names") return last;
  return { selector: last.selector, path: last.path.slice(0, -1) };
}

/** Going on behind a place must not lead to it again. */
function isSame(place: Place, other: Place | null): boolean {
  return other !== null && place.selector === other.selector && Bun.deepEquals(place.path, other.path);
}

function excludesNothing({ text }: PathPattern): NixcacheError {
  return new NixcacheError("build", `--exclude ${preview(text)}: nothing that would be built is like this`, {
    hint: "Correct the pattern or leave it out. Nothing was built, as what it was meant for would be among it.",
  });
}

function cannotEvaluate(source: Source, error: readonly string[]): NixcacheError {
  const name = "flake" in source ? `the flake ${source.flake}` : source.file;
  return new NixcacheError("nix-store", `cannot evaluate ${name}: ${shortError(error)}`, {
    hint: "See what Nix says about it in full: `nix flake check --no-build`, or `nix-instantiate` for a file.",
    cause: new Error(error.join("\n")),
  });
}

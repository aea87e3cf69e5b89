/** Finds the derivations that a flake or a Nix file offers to this machine. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { messageOf, NixcacheError } from "../errors.ts";
import { parseOutputs } from "../nix/derivation.ts";
import { shortError } from "../nix/error-text.ts";
import { Evaluator, type Source } from "../nix/evaluate.ts";
import type { Environment } from "../nix/location.ts";
import { compilePattern, formatAttributePath, isPattern, namePattern } from "./attribute-path.ts";
import { DEFAULT_OUTPUTS, fileSelector, flakeSelector, type Selector } from "./selector.ts";
import { type Place, parseWalkLine, type WalkArguments, type WalkEvent, walkExpression } from "./walk.ts";

/** Where a newcomer's flake is. */
const DEFAULT_FLAKE = "config";

/**
 * Attributes that `throw` whose messages are asked for, each by an evaluation of its own: `tryEval` keeps the
 * message to itself. A package set may have thousands.
 */
const EXPLAINED = 10;

export interface Target {
  /** The attribute path below the flake or file, as `nix build FLAKE#PATH` takes it; empty for a whole file. */
  readonly attribute: string;
  /** The derivation's name with its version. */
  readonly name: string;
  /** Store path of the derivation, which is there. */
  readonly drvPath: string;
  /** Store path by output name. */
  readonly outputs: Readonly<Record<string, string>>;
  readonly system: string;
}

export interface LeftOut {
  readonly attribute: string;
  /** A sentence without its full stop: Nix's own message, shortened. */
  readonly reason: string;
}

export interface Discovery {
  /** In the order of the outputs asked for, below them bytewise; none twice. */
  readonly targets: readonly Target[];
  /** What should be a derivation, but cannot be evaluated. */
  readonly broken: readonly LeftOut[];
  /** What is fine and not for this machine, such as hosts of another system. */
  readonly skipped: readonly LeftOut[];
}

export interface DiscoverOptions {
  readonly source: Source;
  /**
   * For flakes: names as `flakeSelector` takes them. Default: DEFAULT_OUTPUTS. For files: attribute paths; by
   * default the whole file.
   */
  readonly outputs?: readonly string[];
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
 * @throws `usage` for a pattern or an output that is none; `nix-store` when the source cannot be evaluated at all.
 */
export async function discover(options: DiscoverOptions): Promise<Discovery> {
  const { system } = options;
  const evaluator = new Evaluator(options.source, options);
  const selectors = selectorsOf(options);
  const found = new Found(options);
  const shown = new Set<string>();

  const include = (options.include ?? []).map(compilePattern);
  const exclude = (options.exclude ?? []).map((pattern) => compilePattern(pattern).meant);
  const walk = async (args: Omit<WalkArguments, "exclude" | "system">) => {
    const events: WalkEvent[] = [];
    const expression = walkExpression({ ...args, exclude, system });
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

  const compiled = selectors.map(compileSelector);
  for (let after: Place | null = null; ; ) {
    const { events, error } = await walk({ selectors: compiled, include, after, catch: true });
    for (const event of events) await found.add(event);
    if (error.length === 0) break;
    const culprit = events.findLast(({ kind }) => kind === "begin");
    if (culprit === undefined) throw cannotEvaluate(options.source, error);
    found.breaks(culprit, shortError(error));
    after = { selector: culprit.selector, path: culprit.path };
  }

  for (const place of found.thrown.slice(0, EXPLAINED)) {
    const selector = { paths: [place.path.map((name) => ({ name }))], recurse: false, required: true };
    const { error } = await walk({ selectors: [selector], include: [], after: null, catch: false });
    if (error.length > 0) found.breaks(place, shortError(error));
  }
  return found.result();
}

function selectorsOf({ source, outputs, system }: DiscoverOptions): Selector[] {
  if ("flake" in source) return (outputs ?? DEFAULT_OUTPUTS).map((output) => flakeSelector(output, system));
  return (outputs ?? [undefined]).map(fileSelector);
}

function compileSelector(selector: Selector): WalkArguments["selectors"][number] {
  const step = (name: string) => (isPattern(name) ? { pattern: namePattern(name) } : { name });
  return { ...selector, paths: selector.paths.map((path) => path.map(step)) };
}

function cannotEvaluate(source: Source, error: readonly string[]): NixcacheError {
  const name = "flake" in source ? `the flake ${source.flake}` : source.file;
  return new NixcacheError("nix-store", `cannot evaluate ${name}: ${shortError(error)}`, {
    hint: "See what Nix says about it in full: `nix flake check --no-build`, or `nix-instantiate` for a file.",
    cause: new Error(error.join("\n")),
  });
}

/** What an attribute throws that was not asked for its message. */
const UNEXPLAINED = "it throws; `nix eval` of its drvPath says what";

class Found {
  readonly #options: DiscoverOptions;
  /** By attribute: several selectors may come to the same one. */
  readonly #targets = new Map<string, Target>();
  readonly #broken = new Map<string, string>();
  readonly #skipped = new Map<string, string>();
  /** In the order of the walk. */
  readonly thrown: Place[] = [];

  constructor(options: DiscoverOptions) {
    this.#options = options;
  }

  async add(event: WalkEvent): Promise<void> {
    const attribute = this.#attribute(event);
    switch (event.kind) {
      case "derivation": {
        const { name, drvPath, outputs, system } = event;
        this.#addTarget(attribute, { attribute, name, drvPath, outputs, system });
        break;
      }
      case "program":
        await this.#addProgram(attribute, event.drvPaths);
        break;
      case "thrown":
        if (!this.#broken.has(attribute)) this.thrown.push(event);
        this.#broken.set(attribute, UNEXPLAINED);
        break;
      case "missing":
        this.#broken.set(attribute, "there is no such attribute");
        break;
      case "other":
        this.#broken.set(attribute, `expected a derivation, found a ${event.type}`);
        break;
      case "foreign":
        this.#skipped.set(
          attribute,
          `it is for ${event.system}, and this machine is ${this.#options.system}`,
        );
        break;
      case "begin":
    }
  }

  async #addProgram(attribute: string, drvPaths: readonly string[]): Promise<void> {
    if (drvPaths.length === 0) this.#skipped.set(attribute, "its program is a file that nothing builds");
    const { realPath = (path: string) => path, system } = this.#options;
    for (const [index, drvPath] of drvPaths.entries()) {
      const text = await readFile(realPath(drvPath), "utf8").catch((cause: unknown) => {
        throw new NixcacheError("nix-store", `cannot read ${drvPath}: ${messageOf(cause)}`, { cause });
      });
      const name = drvPath.replace(/^.*?\/[0-9a-z]{32}-|\.drv$/g, "");
      const key = index === 0 ? attribute : `${attribute} (${index + 1})`;
      this.#addTarget(key, { attribute, name, drvPath, outputs: parseOutputs(text, drvPath), system });
    }
  }

  /** @param key the attribute, or a word more where one has several. */
  #addTarget(key: string, target: Target): void {
    const isKnown = Object.values(target.outputs).every((path) => /\/[0-9a-z]{32}-[^/]+$/.test(path));
    if (isKnown && Object.keys(target.outputs).length > 0) this.#targets.set(key, target);
    else
      this.#broken.set(key, "its paths follow from what it will contain, which nixcache cannot publish yet");
  }

  breaks(place: Place, reason: string): void {
    this.#broken.set(this.#attribute(place), reason);
  }

  /** Where not even the way to it could be found, what the person called it. */
  #attribute({ path, selector }: Place): string {
    return path.length === 0 ? (this.#options.outputs?.[selector] ?? "") : formatAttributePath(path);
  }

  result(): Discovery {
    const list = (map: ReadonlyMap<string, string>) =>
      [...map].map(([attribute, reason]) => ({ attribute, reason }));
    return { targets: [...this.#targets.values()], broken: list(this.#broken), skipped: list(this.#skipped) };
  }
}

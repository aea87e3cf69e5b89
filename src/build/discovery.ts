/** What was found, out of the events of a walk. */
import { readOutputsOf } from "../nix/derivation.ts";
import { formatAttributePath, isPattern } from "./attribute-path.ts";
import { Matches } from "./matches.ts";
import type { PathPattern } from "./pattern.ts";
import type { Place } from "./place.ts";
import { DEFAULT_OUTPUTS, otherSystem, type Selector } from "./selector.ts";
import type { WalkEvent } from "./walk.ts";

export interface Target {
  /** The attribute path below the flake or file, as `nix build FLAKE#PATH` takes it; empty for a whole file. */
  readonly attribute: string;
  /** The derivation's name with its version. */
  readonly name: string;
  /** Store path of the derivation, which is there. */
  readonly drvPath: string;
  /** By name, the outputs that are wanted; null where the store path is known once it is built. */
  readonly outputs: Readonly<Record<string, string | null>>;
  readonly system: string;
}

export interface LeftOut {
  readonly attribute: string;
  /** A sentence without its full stop: Nix's own message, shortened. */
  readonly reason: string;
}

/** In the order of the outputs asked for, below them bytewise; none twice. */
export interface Discovery {
  readonly targets: readonly Target[];
  /** What a person has named, by a name or a pattern, and is not there. */
  readonly missing: readonly LeftOut[];
  /** What should be a derivation, but cannot be evaluated. */
  readonly broken: readonly LeftOut[];
  /** What is fine and not for this machine, such as hosts of another system. */
  readonly skipped: readonly LeftOut[];
}

type Outputs = Target["outputs"];

/** Those of a derivation that are wanted, now or before, in its own order. @param wanted all when undefined */
export function selectOutputs(
  all: Outputs,
  wanted: readonly string[] | undefined,
  before: Outputs = {},
): Outputs {
  const isWanted = (name: string) =>
    wanted === undefined || wanted.includes(name) || Object.hasOwn(before, name);
  return Object.fromEntries(Object.entries(all).filter(([name]) => isWanted(name)));
}

/** What was wanted of a derivation that has no such output. */
export function lackingOutputs(attribute: string, all: Outputs, wanted: readonly string[] = []): LeftOut[] {
  const reason = `there is no such output; it has ${Object.keys(all).join(", ")}`;
  const lacking = wanted.filter((name) => !Object.hasOwn(all, name));
  return lacking.map((name) => ({ attribute: `${attribute}^${name}`, reason }));
}

export interface FoundOptions {
  readonly selectors: readonly Selector[];
  /** As the person wrote the selectors. */
  readonly outputs?: readonly string[];
  readonly include: readonly PathPattern[];
  readonly exclude: readonly PathPattern[];
  readonly system: string;
  /** Where the file of a store path is. Default: the path itself. */
  realPath?(storePath: string): string;
}

/** What an attribute throws that was not asked for its message. */
const UNEXPLAINED = "it throws; `nix eval` of its drvPath says what";

const ABSENT = "there is no such attribute";

/** By `builtins.typeOf`. */
const TYPES: Readonly<Record<string, string>> = {
  ...{ bool: "a Boolean", float: "a number", int: "a number", lambda: "a function", list: "a list" },
  ...{ null: "null", path: "a path", set: "a set", string: "a string" },
};

function isStorePath(text: string): boolean {
  return /\/[0-9a-z]{32}-[^/]+$/.test(text);
}

export class Found {
  readonly #options: FoundOptions;
  readonly #matches: Matches;
  /** By attribute: several selectors may come to the same one. */
  readonly #targets = new Map<string, Target>();
  readonly #missing = new Map<string, string>();
  readonly #broken = new Map<string, string>();
  readonly #skipped = new Map<string, string>();
  /** In the order of the walk. */
  readonly thrown: Place[] = [];

  constructor(options: FoundOptions) {
    this.#options = options;
    this.#matches = new Matches([...options.include, ...options.exclude]);
  }

  async add(event: WalkEvent): Promise<void> {
    this.#matches.see(event);
    const attribute = this.#attribute(event);
    const isRequired = this.#options.selectors[event.selector]?.required === true;
    switch (event.kind) {
      case "derivation": {
        const { name, drvPath, system } = event;
        // In the place of a path that is not known yet Nix has a text of its own.
        const paths = Object.entries(event.outputs).map(([output, path]) => [
          output,
          isStorePath(path) ? path : null,
        ]);
        const outputs = Object.fromEntries(paths);
        this.#addTarget(attribute, { attribute, name, drvPath, outputs, system }, event.selector);
        break;
      }
      case "program":
        await this.#addProgram(attribute, event.drvPaths, event.selector);
        break;
      case "thrown":
        if (!this.#broken.has(attribute)) this.thrown.push(event);
        this.#broken.set(attribute, UNEXPLAINED);
        break;
      case "missing":
        if (isRequired) this.#missing.set(this.#asked(event.selector), ABSENT);
        else this.#broken.set(attribute, ABSENT);
        break;
      case "other": {
        const type = TYPES[event.type] ?? event.type;
        if (isRequired && event.wanted === "set") {
          this.#missing.set(this.#asked(event.selector), `${ABSENT}: ${attribute} is ${type}`);
        } else {
          const list = isRequired ? this.#missing : this.#broken;
          list.set(attribute, `expected a ${event.wanted}, found ${type}`);
        }
        break;
      }
      case "foreign":
        this.#skipped.set(attribute, this.#foreign(event.system));
        break;
      case "begin":
      case "excluded":
      case "names":
    }
  }

  breaks(place: Place, reason: string): void {
    this.#matches.see({ ...place, kind: "thrown" });
    this.#broken.set(this.#attribute(place), reason);
  }

  /** Those of `patterns` that nothing is like. */
  unmatched(patterns: readonly PathPattern[]): PathPattern[] {
    return patterns.filter((pattern) => !this.#matches.has(pattern));
  }

  result(): Discovery {
    const missing = new Map(this.#missing);
    const skipped = new Map(this.#skipped);
    for (const [index, selector] of this.#options.selectors.entries()) {
      // With patterns of what counts, what a name leads to may all be beside them.
      const isClear = !selector.required || this.#options.include.length === 0;
      if (!selector.named || !isClear || this.#matches.hasSelector(index)) continue;
      const isNothing = selector.paths.some(isPattern);
      missing.set(this.#asked(index), isNothing ? "nothing is like this" : "there is no derivation in it");
    }
    for (const { text, steps } of this.unmatched(this.#options.include)) {
      const other = otherSystem(steps, this.#options.system);
      if (other === undefined) missing.set(text, "nothing is like this pattern of --include");
      else skipped.set(text, this.#foreign(other));
    }
    const list = (map: ReadonlyMap<string, string>) =>
      [...map].map(([attribute, reason]) => ({ attribute, reason }));
    return {
      targets: [...this.#targets.values()],
      missing: list(missing),
      broken: list(this.#broken),
      skipped: list(skipped),
    };
  }

  async #addProgram(attribute: string, drvPaths: readonly string[], selector: number): Promise<void> {
    if (drvPaths.length === 0) this.#skipped.set(attribute, "its program is a file that nothing builds");
    const { realPath = (path: string) => path, system } = this.#options;
    for (const [index, drvPath] of drvPaths.entries()) {
      const outputs = await readOutputsOf(realPath(drvPath), drvPath);
      const name = drvPath.replace(/^.*?\/[0-9a-z]{32}-|\.drv$/g, "");
      const key = index === 0 ? attribute : `${attribute} (${index + 1})`;
      this.#addTarget(key, { attribute: key, name, drvPath, outputs, system }, selector);
    }
  }

  /** @param key the attribute, or a word more where one has several. */
  #addTarget(key: string, target: Target, selector: number): void {
    const wanted = this.#options.selectors[selector]?.outputs;
    const lacking = lackingOutputs(key, target.outputs, wanted);
    for (const { attribute, reason } of lacking) this.#missing.set(attribute, reason);
    const outputs = selectOutputs(target.outputs, wanted, this.#targets.get(key)?.outputs);
    if (Object.keys(outputs).length > 0) this.#targets.set(key, { ...target, outputs });
  }

  #foreign(system: string): string {
    return `it is for ${system}, and this machine is ${this.#options.system}`;
  }

  /** What the person called it. */
  #asked(selector: number): string {
    return (this.#options.outputs ?? DEFAULT_OUTPUTS)[selector] ?? "";
  }

  /** Where not even the way to it could be found, what the person called it. */
  #attribute({ path, selector }: Place): string {
    return path.length === 0 ? (this.#options.outputs?.[selector] ?? "") : formatAttributePath(path);
  }
}

/** Which attributes of a flake, or of a Nix file, are looked at for derivations. */
import { ANY_NAME, isPattern, readings, type Step } from "./attribute-path.ts";
import { splitOutputs } from "./installable.ts";

export interface Selector {
  /** The first of these that exists is taken. */
  readonly paths: readonly (readonly Step[])[];
  /** Also what lies in sets below, as far as they say `recurseForDerivations`. */
  readonly recurse: boolean;
  /** Length of the path of a set with its own `pkgs`, whose platform says which machine can build it. */
  readonly host?: number;
  /** Whether it is a fault when there is nothing: a person has named it. */
  readonly named: boolean;
  /** Whether every name is given, so that one can be missing. */
  readonly required: boolean;
  /** Of its derivations only these outputs; all when undefined. */
  readonly outputs?: readonly string[] | undefined;
}

/** What is published unless something else is asked for. */
export const DEFAULT_OUTPUTS = ["packages", "nixosConfigurations", "devShells"] as const;

/** Flake outputs with a set a system. https://nix.dev/manual/nix/latest/command-ref/new-cli/nix3-flake-check */
const BY_SYSTEM = new Set(["packages", "devShells", "checks", "apps"]);

/** Those, and others with an attribute a system. */
const WITH_SYSTEM = new Set([...BY_SYSTEM, "legacyPackages", "formatter"]);

/** Flake outputs with a configuration a name, and where its derivation is. */
const CONFIGURATIONS: Readonly<Record<string, readonly string[]>> = {
  nixosConfigurations: ["config", "system", "build", "toplevel"],
  darwinConfigurations: ["system"],
  homeConfigurations: ["activationPackage"],
};

const WHOLE = { recurse: false, required: false, named: false } as const;

/**
 * @param output one of the flake outputs above, `legacyPackages`, `formatter`, or an attribute path as
 *   `nix build FLAKE#PATH` takes it, in which names may be patterns and which may have outputs behind a `^`.
 * @param system such as `x86_64-linux`.
 * @throws `usage` when it is none.
 */
export function flakeSelector(output: string, system: string): Selector {
  const path = (...names: readonly string[]): Step[] => names.map((name) => ({ name }));
  if (BY_SYSTEM.has(output)) return { ...WHOLE, paths: [[...path(output, system), ANY_NAME]] };
  if (output === "legacyPackages") return { ...WHOLE, paths: [path(output, system)], recurse: true };
  if (output === "formatter") return { ...WHOLE, paths: [path(output, system)] };
  const inside = Object.hasOwn(CONFIGURATIONS, output) ? CONFIGURATIONS[output] : undefined;
  if (inside !== undefined) {
    return { ...WHOLE, paths: [[...path(output), ANY_NAME, ...path(...inside)]], host: 2 };
  }
  const { text, outputs } = splitOutputs(output);
  const absolute = text.startsWith(".");
  const prefixes = absolute ? [] : [path("packages", system), path("legacyPackages", system)];
  const written = readings(absolute ? text.slice(1) : text);
  return named(
    written.flatMap((steps) => [...prefixes.map((prefix) => [...prefix, ...steps]), steps]),
    outputs,
  );
}

/** @param attribute an attribute path as `nix-build -A` takes it; the whole file when undefined. */
export function fileSelector(attribute: string | undefined): Selector {
  if (attribute === undefined) return { ...WHOLE, paths: [[]], recurse: true };
  const { text, outputs } = splitOutputs(attribute);
  return named(readings(text), outputs);
}

function named(paths: readonly (readonly Step[])[], outputs: readonly string[] | undefined): Selector {
  const required = !paths.some(isPattern);
  return { paths, recurse: true, named: true, required, ...(outputs && { outputs }) };
}

/**
 * The other system that a path is about, such as `aarch64-linux` of `packages.aarch64-linux.*`: what it names is not
 * looked at here, whether it is there or not.
 */
export function otherSystem([output, second]: readonly Step[], system: string): string | undefined {
  if (output === undefined || second === undefined || !("name" in output) || !("name" in second))
    return undefined;
  const isSystem = WITH_SYSTEM.has(output.name) && /^[a-z0-9_]+-[a-z0-9]+$/.test(second.name);
  return isSystem && second.name !== system ? second.name : undefined;
}

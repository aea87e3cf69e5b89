/** Which attributes of a flake, or of a Nix file, are looked at for derivations. */
import { type AttributePath, isPattern, parseAttributePath } from "./attribute-path.ts";

export interface Selector {
  /** The first of these that exists is taken. A name may be a pattern such as `*`. */
  readonly paths: readonly AttributePath[];
  /** Also what lies in sets below, as far as they say `recurseForDerivations`. */
  readonly recurse: boolean;
  /** Length of the path of a set with its own `pkgs`, whose platform says which machine can build it. */
  readonly host?: number;
  /** What the person asked for by this very name: it is a fault when it is not there. */
  readonly required: boolean;
}

/** What is published unless something else is asked for. */
export const DEFAULT_OUTPUTS = ["packages", "nixosConfigurations", "devShells"] as const;

/** Flake outputs with a set a system. https://nix.dev/manual/nix/latest/command-ref/new-cli/nix3-flake-check */
const BY_SYSTEM = new Set(["packages", "devShells", "checks", "apps"]);

/** Flake outputs with a configuration a name, and where its derivation is. */
const CONFIGURATIONS: Readonly<Record<string, AttributePath>> = {
  nixosConfigurations: ["config", "system", "build", "toplevel"],
  darwinConfigurations: ["system"],
  homeConfigurations: ["activationPackage"],
};

/**
 * @param output one of the flake outputs above, `legacyPackages`, `formatter`, or an attribute path as
 *   `nix build FLAKE#PATH` takes it, in which names may be patterns.
 * @param system such as `x86_64-linux`.
 * @throws `usage` when it is none.
 */
export function flakeSelector(output: string, system: string): Selector {
  if (BY_SYSTEM.has(output)) {
    return { paths: [[output, system, "*"]], recurse: false, required: false };
  }
  if (output === "legacyPackages") return { paths: [[output, system]], recurse: true, required: false };
  if (output === "formatter") return { paths: [[output, system]], recurse: false, required: false };
  const inside = Object.hasOwn(CONFIGURATIONS, output) ? CONFIGURATIONS[output] : undefined;
  if (inside !== undefined) {
    return { paths: [[output, "*", ...inside]], recurse: false, host: 2, required: false };
  }
  const absolute = output.startsWith(".");
  const path = parseAttributePath(absolute ? output.slice(1) : output);
  const prefixes = absolute
    ? []
    : [
        ["packages", system],
        ["legacyPackages", system],
      ];
  return {
    paths: [...prefixes.map((prefix) => [...prefix, ...path]), path],
    recurse: true,
    required: !path.some(isPattern),
  };
}

/** @param attribute an attribute path as `nix-build -A` takes it; the whole file when undefined. */
export function fileSelector(attribute: string | undefined): Selector {
  const path = attribute === undefined ? [] : parseAttributePath(attribute);
  return { paths: [path], recurse: true, required: !path.some(isPattern) };
}

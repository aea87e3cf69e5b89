/** Nix expressions that build with nothing but what every system has. */

/** A derivation built by the system's shell and core utilities: no compiler, no nixpkgs, no network. */
export function shellDerivation(name: string, script: string, attributes = ""): string {
  return `derivation {
    name = "${name}"; system = builtins.currentSystem; builder = "/bin/sh"; ${attributes}
    args = [ "-e" "-c" ''PATH=/usr/bin:/bin; ${script}'' ];
  }`;
}

/** The lines of a command's output. */
export function lines(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

/**
 * A flake without inputs. `outputs` are the attributes of what it gives, in which `sh NAME SCRIPT ATTRIBUTES` is a
 * derivation as above and `self` the flake.
 */
export function flakeText(outputs: string): string {
  const system = `${process.arch === "arm64" ? "aarch64" : "x86_64"}-${process.platform}`;
  return `{
    outputs = { self }: let
      sh = name: script: attributes: derivation ({
        inherit name; system = "${system}"; builder = "/bin/sh";
        args = [ "-e" "-c" ("PATH=/usr/bin:/bin; " + script) ];
      } // attributes);
    in { ${outputs} };
  }`;
}

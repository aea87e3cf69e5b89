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

/**
 * The name of a store path taken apart as `nix store diff-closures` does it: `firefox-128.0-man` is the output `man` of
 * firefox 128.0. A guess, and Nix's own: a last word without digits counts as an output, whatever it is.
 * https://nix.dev/manual/nix/latest/command-ref/nix-store/query (package names)
 */

export interface PackageName {
  readonly name: string;
  /** Empty where the name has none. */
  readonly version: string;
}

const OUTPUT = /^(.*)-(?:[a-z]+|lib32|lib64)$/;

/** The version begins at the first dash that no letter follows. */
export function splitPackageName(full: string): PackageName {
  const base = OUTPUT.exec(full)?.[1] ?? full;
  const cut = base.search(/-[^A-Za-z]/);
  return cut === -1
    ? { name: base, version: "" }
    : { name: base.slice(0, cut), version: base.slice(cut + 1) };
}

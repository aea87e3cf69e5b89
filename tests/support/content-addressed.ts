/** Content-addressed derivations, an experimental feature of Nix: their outputs are found by realisations. */
import { nixAtLeast } from "./nix.ts";

/** What Nix's commands must be told. */
export const CONTENT_ADDRESSED = [
  "--option",
  "experimental-features",
  "nix-command flakes ca-derivations",
] as const;

/** Whether the Nix that the tests use records which realisations one depends on: 2.34 no longer does. */
export const recordsDependents = () => !nixAtLeast("2.34");

/** An expression for a derivation with two outputs that refers to another one; the first is what one installs. */
export function contentAddressed(): string {
  return `
    let make = args: derivation ({
      system = builtins.currentSystem; builder = "/bin/sh";
      __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";
    } // args);
    dependency = make { name = "dependency"; args = [ "-c" "echo content > $out" ]; };
    in make {
      name = "top"; outputs = [ "out" "dev" ]; inherit dependency;
      args = [ "-c" "echo log of top; /bin/mkdir $out; echo $dependency > $out/x; echo dev > $dev" ];
    } // { meta.outputsToInstall = [ "out" ]; }`;
}

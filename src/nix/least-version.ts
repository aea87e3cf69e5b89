/** The least version of Nix that works with a cache of ours, and how an older one shows. */
import { NixcacheError } from "../errors.ts";

/** It brought the unpacking of zstd, flakes, and the options that we pass. Tests go back to 2.8. */
export const LEAST_NIX = "2.4";

/** @param version such as `2.3.7`, or with letters behind it */
export function isTooOld(version: string): boolean {
  const numbers = /^\d+\.\d+/.exec(version)?.[0];
  return numbers !== undefined && Bun.semver.order(`${numbers}.0`, `${LEAST_NIX}.0`) < 0;
}

/** @param stderr of a command that failed. @throws `nix-store` where it failed since this Nix is too old */
export function refuseTooOld(stderr: string): void {
  if (!/^error: (unrecognised|unknown) flag '--(extra-experimental-features|log-format)'/m.test(stderr))
    return;
  throw new NixcacheError("nix-store", `this Nix is older than ${LEAST_NIX}`, {
    hint: `Install Nix ${LEAST_NIX} or newer: an older one cannot unpack what a cache holds either.`,
    cause: new Error(stderr),
  });
}

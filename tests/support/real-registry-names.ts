/** Which registries a run of `bun run test:registries` is about. */
import { REGISTRY_PROGRAMS } from "../../scripts/registry-programs.ts";
import { realRegistryProgram } from "./real-registry.ts";
import type { RealRegistryName } from "./real-registry-kinds.ts";

/**
 * Those whose programs are named by environment variables, and Debian's docker-registry to compare with.
 * @throws when none is named, so that a run of nothing is no success
 */
export function registriesUnderTest(): RealRegistryName[] {
  const named = (Object.keys(REGISTRY_PROGRAMS) as (keyof typeof REGISTRY_PROGRAMS)[]).filter(
    (name) => realRegistryProgram(name) !== undefined,
  );
  if (named.length === 0) throw new Error("no registry is named: run `bun run test:registries`");
  return realRegistryProgram("docker-registry") === undefined ? named : ["docker-registry", ...named];
}

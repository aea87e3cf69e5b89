/**
 * The modules of `nix/modules`, evaluated by the real Nix. What stands in for NixOS, nix-darwin and home-manager, and
 * for nixpkgs' lib, is in `tests/support/nixpkgs`; NIXCACHE_TEST_NIXPKGS_LIB names a real lib to use in its place.
 */
import { join } from "node:path";
import { ROOT } from "../../scripts/process.ts";
import type { TestNix } from "./nix.ts";

export const STAND_IN = join(ROOT, "tests", "support", "nixpkgs");

export type Platform = "nixos" | "darwin" | "home";

export interface Evaluated {
  /** The sentences of the assertions that do not hold. */
  readonly failed: readonly string[];
  readonly warnings: readonly string[];
  readonly nix: { readonly settings: Readonly<Record<string, unknown>> };
  // biome-ignore lint/suspicious/noExplicitAny: what a configuration sets, of any shape
  readonly [name: string]: any;
}

/**
 * @param options of services.nixcache-proxy, as Nix
 * @param more of the configuration, as Nix
 */
export async function evaluateModule(
  nix: TestNix,
  platform: Platform,
  options: string,
  more = "{ }",
  system = platform === "darwin" ? "aarch64-darwin" : "x86_64-linux",
): Promise<Evaluated> {
  const lib = process.env.NIXCACHE_TEST_NIXPKGS_LIB || join(STAND_IN, "lib.nix");
  const expression = `import ${STAND_IN}/evaluate.nix {
    lib = import ${lib};
    platform = "${platform}";
    system = "${system}";
    release = "${system === "x86_64-darwin" ? "26.05" : "26.11"}";
    configuration = [ { services.nixcache-proxy = ${options}; } (${more}) ];
  }`;
  return JSON.parse(await evaluate(nix, expression));
}

/** What a Nix expression comes to, as JSON. @throws with what Nix said */
export function evaluate(nix: TestNix, expression: string): Promise<string> {
  return nix.run("nix-instantiate", ["--eval", "--strict", "--json", "--expr", expression]);
}

/** A unit file, as NixOS writes what `systemd.services.NAME` is. */
export function unitText(service: Evaluated): string {
  const lines = [
    "[Unit]",
    `Description=${service.description}`,
    ...service.after.map((unit: string) => `After=${unit}`),
    `StartLimitIntervalSec=${service.startLimitIntervalSec}`,
    "[Service]",
    ...Object.entries(service.environment).map(
      ([name, value]) => `Environment=${JSON.stringify(`${name}=${value}`)}`,
    ),
    ...sectionLines(service.serviceConfig),
  ];
  return `${lines.join("\n")}\n`;
}

/** A unit file, as home-manager writes what `systemd.user.services.NAME` is. */
export function userUnitText(service: Readonly<Record<string, Readonly<Record<string, unknown>>>>): string {
  return Object.entries(service)
    .map(([name, section]) => `[${name}]\n${sectionLines(section).join("\n")}\n`)
    .join("");
}

function sectionLines(section: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(section).flatMap(([name, value]) => [value].flat().map((one) => `${name}=${one}`));
}

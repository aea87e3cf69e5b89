/** Tests that need programs of other people. */
import { describe } from "bun:test";
import { hasNix } from "./nix.ts";
import { hasRegistry } from "./registry.ts";

const PARTS = {
  nix: hasNix,
  registry: hasRegistry,
  skopeo: () => Bun.which("skopeo") !== null,
} as const;

/** `describe`, skipped where a part is missing; with CI=true it runs, and fails for want of the part. */
export function describeWith(parts: readonly (keyof typeof PARTS)[], name: string, body: () => void): void {
  const missing = parts.some((part) => !PARTS[part]());
  describe.skipIf(missing && process.env.CI !== "true")(name, body);
}

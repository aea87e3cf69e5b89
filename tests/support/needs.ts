/** Tests that need programs of other people. */
import { describe } from "bun:test";
import { hasChromium } from "./chromium.ts";
import { type Lease, lease } from "./lease.ts";
import { hasNginx } from "./nginx.ts";
import { hasNix, type TestNix, withNix } from "./nix.ts";
import { hasOtherUser } from "./other-user.ts";
import { hasRegistry } from "./registry.ts";

const PARTS = {
  nix: hasNix,
  registry: hasRegistry,
  chromium: hasChromium,
  nginx: hasNginx,
  skopeo: () => Bun.which("skopeo") !== null,
  fish: () => Bun.which("fish") !== null,
  zsh: () => Bun.which("zsh") !== null,
  groff: () => Bun.which("groff") !== null,
  mandoc: () => Bun.which("mandoc") !== null,
  systemd: () => Bun.which("systemd-analyze") !== null,
  "other user": hasOtherUser,
  wrk: () => Bun.which("wrk") !== null,
} as const;

/** `describe`, skipped where a part is missing; with CI=true it runs, and fails for want of the part. */
export function describeWith(parts: readonly (keyof typeof PARTS)[], name: string, body: () => void): void {
  const missing = parts.some((part) => !PARTS[part]());
  describe.skipIf(missing && process.env.CI !== "true")(name, body);
}

/** A Nix of their own for the tests of a file. */
export function openNix(): Promise<Lease<TestNix>> {
  return lease<TestNix>(withNix);
}

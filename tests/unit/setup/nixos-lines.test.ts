import { expect, test } from "bun:test";
import { parseReference } from "../../../src/oci/reference.ts";
import { nixosLines } from "../../../src/setup/nixos-lines.ts";

const [ONE, TWO] = [`me-1:${"A".repeat(43)}=`, `me-2:${"B".repeat(43)}=`];

test("a cache of GHCR is named as people name it, and further keys have their place", () => {
  expect(nixosLines(parseReference("Me/Stuff"), "http://127.0.0.1:37515", [ONE, TWO])).toBe(
    `# With the module of nixcache's flake, nixosModules.default, which runs \`nixcache serve\` as a service:
services.nixcache-proxy = {
  enable = true;
  repo = "me/stuff";
  port = 37515;
  publicKey = "${ONE}";
  publicKeys = [ "${TWO}" ];
};

# Or, where \`nixcache serve\` is run otherwise:
nix.settings = {
  extra-substituters = [ "http://127.0.0.1:37515" ];
  extra-trusted-public-keys = [ "${ONE}" "${TWO}" ];
  fallback = true;
};`,
  );
});

test.each([
  ["ghcr.io/me/stuff/other", 'caches = [ "ghcr.io/me/stuff/other" ];'],
  ["registry.example.org/x", 'caches = [ "registry.example.org/x" ];'],
  ['/srv/a"$' + "{b}\\c", 'caches = [ "/srv/a\\"\\$' + '{b}\\\\c" ];'],
])("%s", (reference, line) => {
  expect(nixosLines(parseReference(reference), "http://x", [])).toContain(line);
});

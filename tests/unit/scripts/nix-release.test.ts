import { expect, test } from "bun:test";
import { nixRelease, SYSTEMS } from "../../../scripts/nix-release.ts";
import { PLATFORMS } from "../../../scripts/release.ts";

const SHA256 = "0123456789abcdef".repeat(4);
const RELEASES = "https://github.com/owner/nixcache/releases/download";
/** What `bun run release` writes. */
const SUMS = Object.keys(PLATFORMS)
  .map((platform) => `${SHA256}  nixcache-${platform}.tar.gz\n`)
  .join("");

test("each system of Nix has an archive, with its checksum", () => {
  expect(JSON.parse(nixRelease("v1.2.3-rc.1", RELEASES, SUMS))).toEqual({
    version: "1.2.3-rc.1",
    systems: Object.fromEntries(
      SYSTEMS.map((system) => [
        system,
        { url: `${RELEASES}/v1.2.3-rc.1/nixcache-${system}.tar.gz`, sha256: SHA256 },
      ]),
    ),
  });
});

test.each([
  [
    "a missing archive",
    "v1.2.3",
    SUMS.replace(/^.*aarch64-darwin.*\n/m, ""),
    "nixcache-aarch64-darwin.tar.gz is not in it",
  ],
  [
    "a checksum that is none",
    "v1.2.3",
    SUMS.replace(SHA256, "abc"),
    "nixcache-x86_64-linux.tar.gz is not in it",
  ],
  ["nothing", "v1.2.3", "", "is not in it"],
  ["a branch in the place of a tag", "main", SUMS, 'got "main", expected a tag such as v1.2.3'],
])("%s is an error", (_, tag, sums, message) => {
  expect(() => nixRelease(tag, RELEASES, sums)).toThrow(message);
});

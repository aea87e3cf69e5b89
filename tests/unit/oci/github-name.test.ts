/** Names of repositories at GitHub, and of their caches. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { cacheReference } from "../../../src/config.ts";
import { cacheNameOf, isGitHubName } from "../../../src/oci/github-name.ts";
import { formatReference, gitHubCache, parseReference } from "../../../src/oci/reference.ts";
import { nixosLines } from "../../../src/setup/nixos-lines.ts";
import { propertyParameters } from "../../support/seed.ts";

/** https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests, as it is written there */
const OCI_NAME = /^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$/;

test.each([
  ["owner/repo", "owner/repo"],
  ["Owner/My.Repo", "owner/my.repo"],
  ["a--b/c_d", "a--b/c_d"],
  ["acme_corp/a__b", "acme_corp/a__b"],
  ["0/0", "0/0"],
  // Of the others the mark is that of `printf %s NAME | sha256sum`, in lower case.
  ["owner/.dotfiles", "owner/dotfiles-x65c9d002"],
  ["Owner/.DotFiles", "owner/dotfiles-x65c9d002"],
  ["owner/foo-", "owner/foo-xbcc98be4"],
  ["owner/-x", "owner/x-xa4209624"],
  ["owner/__x", "owner/x-x670321fc"],
  ["owner/a..b", "owner/a-b-xf62b4241"],
  ["owner/a___b", "owner/a-b-xce178f6c"],
  ["owner/_", "owner/xd2e2adf7"],
  ["owner/...", "owner/xab5df625"],
  ["foo-/repo", "foo-xbcc98be4/repo"],
])("%s has its cache at %s", (name, expected) => {
  expect(cacheNameOf(name)).toBe(`${expected}/nix-cache`);
});

const character = (characters: string) => fc.constantFrom(...characters);
const ALPHANUMERIC = "abzABZ059";

/** With many separators, as those are what registries refuse. */
const owner = fc.string({ unit: character(`${ALPHANUMERIC}-_`), minLength: 1, maxLength: 39 });
const repo = fc
  .string({ unit: character(`${ALPHANUMERIC}-_.-_.`), minLength: 1, maxLength: 100 })
  .filter((name) => name !== "." && name !== "..");
const name = fc.tuple(owner, repo).map((parts) => parts.join("/"));

describe("every name that GitHub allows", () => {
  test("has a cache that every registry can have, and one alone", () => {
    const seen = new Map<string, string>();
    fc.assert(
      fc.property(name, (text) => {
        expect(isGitHubName(text)).toBe(true);
        const cache = cacheNameOf(text);
        expect(cache).toMatch(OCI_NAME);
        expect(`ghcr.io/${cache}`.length).toBeLessThan(255);
        // GitHub does not tell cases apart, and all others are apart.
        const lower = text.toLowerCase();
        expect(cacheNameOf(lower)).toBe(cache);
        expect(seen.get(cache) ?? lower).toBe(lower);
        seen.set(cache, lower);
      }),
      { ...propertyParameters(), numRuns: 5000 },
    );
  });

  test("that registries allow as it is stays as it is, but for capitals", () => {
    fc.assert(
      fc.property(name, (text) => {
        const lower = text.toLowerCase();
        if (OCI_NAME.test(lower)) expect(cacheNameOf(text)).toBe(`${lower}/nix-cache`);
        else expect(cacheNameOf(text)).not.toBe(`${lower}/nix-cache`);
      }),
      { ...propertyParameters(), numRuns: 5000 },
    );
  });

  test("is the same cache however it is named", () => {
    fc.assert(
      fc.property(name, (text) => {
        const reference = parseReference(text);
        const written = formatReference(reference);
        expect(parseReference(written)).toEqual(reference);
        expect(gitHubCache(text)).toEqual(reference);
        for (const env of [
          { NIXCACHE_CACHE: text },
          { NIXCACHE_REPO: text },
          { GITHUB_ACTIONS: "true", GITHUB_REPOSITORY: text },
        ])
          expect(cacheReference(undefined, env)).toEqual(reference);
        // What use prints for NixOS is read by serve.
        const [, option = ""] =
          /repo = "(.+)";/.exec(nixosLines(reference, "http://127.0.0.1:37515", [])) ?? [];
        expect(parseReference(option)).toEqual(reference);
      }),
      { ...propertyParameters(), numRuns: 2000 },
    );
  });

  test("has its cache at another registry under the same name", () => {
    fc.assert(
      fc.property(name, fc.constantFrom("127.0.0.1:5000", "http://registry.lan", "registry/"), (text, at) => {
        const found = cacheReference(undefined, { NIXCACHE_REPO: text, NIXCACHE_REGISTRY: at });
        expect(found).toMatchObject({ kind: "registry", repository: cacheNameOf(text) });
      }),
      { ...propertyParameters(), numRuns: 1000 },
    );
  });
});

test.each(["owner", "owner/", "/repo", "owner/.", "owner/..", "a.b/c", "a/b/c", "a/b c", "a/ä", "a/b:c", ""])(
  "%j is no name at GitHub",
  (text) => expect(isGitHubName(text)).toBe(false),
);

test("an account that is called as this machine is at GitHub where only accounts can be", () => {
  const env = { GITHUB_ACTIONS: "true", GITHUB_REPOSITORY: "localhost/repo" };
  expect(formatReference(cacheReference(undefined, env))).toBe("ghcr.io/localhost/repo/nix-cache");
});

test("the address of a repository is none of a registry", () => {
  for (const text of ["https://github.com/Owner/Repo", "github.com/owner/repo/tree/main"]) {
    expect(() => parseReference(text)).toThrow("it is the address of a repository, not of a registry");
  }
});

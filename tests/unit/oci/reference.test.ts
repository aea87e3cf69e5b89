import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { NixcacheError } from "../../../src/errors.ts";
import {
  type CacheReference,
  formatReference,
  isLoopback,
  isTag,
  parseReference,
} from "../../../src/oci/reference.ts";

const registry = (host: string, repository: string, scheme: "https" | "http" = "https") =>
  ({ kind: "registry", scheme, host, repository }) as const;
const layout = (path: string) => ({ kind: "layout", path }) as const;

test.each<[string, CacheReference]>([
  ["owner/repo", registry("ghcr.io", "owner/repo/nix-cache")],
  ["Owner/My.Repo", registry("ghcr.io", "owner/my.repo/nix-cache")],
  ["ghcr.io/owner/repo/nix-cache", registry("ghcr.io", "owner/repo/nix-cache")],
  ["owner/.github", registry("ghcr.io", "owner/github-xbdcc6a2a/nix-cache")],
  ["ghcr.io/Owner/Repo", registry("ghcr.io", "owner/repo")],
  ["GHCR.IO/x", registry("ghcr.io", "x")],
  ["https://ghcr.io/owner/repo", registry("ghcr.io", "owner/repo")],
  ["HTTPS://ghcr.io/owner", registry("ghcr.io", "owner")],
  ["registry.example:5000/a/b__c/d-e.f", registry("registry.example:5000", "a/b__c/d-e.f")],
  ["host:5000/a", registry("host:5000", "a")],
  ["localhost/cache", registry("localhost", "cache", "http")],
  ["localhost:5000/cache", registry("localhost:5000", "cache", "http")],
  ["127.0.0.1:5000/cache", registry("127.0.0.1:5000", "cache", "http")],
  ["127.1.2.3/cache", registry("127.1.2.3", "cache", "http")],
  ["[::1]:5000/cache", registry("[::1]:5000", "cache", "http")],
  ["[fd00::1]/cache", registry("[fd00::1]", "cache")],
  ["http://registry.lan/cache", registry("registry.lan", "cache", "http")],
  ["http://registry/cache", registry("registry", "cache", "http")],
  ["https://localhost:5000/cache", registry("localhost:5000", "cache")],
  ["128.0.0.1:5000/cache", registry("128.0.0.1:5000", "cache")],
  ["/srv/cache", layout("/srv/cache")],
  ["./cache", layout("./cache")],
  ["../cache", layout("../cache")],
  [".", layout(".")],
  ["./with:colon", layout("./with:colon")],
  ["oci:cache", layout("cache")],
  ["oci:/srv/cache", layout("/srv/cache")],
])("%s", (text, expected) => {
  expect(parseReference(text)).toEqual(expected);
});

test.each<[string, string]>([
  ["", "empty"],
  ["cache", "no slash"],
  ["ghcr.io", "no repository name"],
  ["ghcr.io/", "no repository name"],
  ["localhost:5000", "no repository name"],
  ["owner/repo/more", "is no host"],
  ["owner/", "nothing follows"],
  ["/a\0b", "NUL"],
  ["oci:", "no folder"],
  ["oci:/srv/cache:latest", "names the tag latest"],
  ["ghcr.io/owner/repo:latest", "names a tag"],
  ["owner/repo:latest", "names a tag"],
  [`ghcr.io/owner/repo@sha256:${"0".repeat(64)}`, "names a digest"],
  [`ghcr.io/owner/repo:tag@sha256:${"0".repeat(64)}`, "names a digest"],
  ["docker://ghcr.io/owner/repo", "only https:// and http://"],
  ["ftp://x/y", "only https:// and http://"],
  ["owner/..", "is no repository name"],
  ["owner/a b", "is no repository name"],
  ["ghcr.io/owner/.github/nix-cache", "is no repository name"],
  ["https://github.com/owner/repo", "the address of a repository"],
  ["ghcr.io/a//b", "is no repository name"],
  ["ghcr.io/a___b", "is no repository name"],
  ["ghcr.io/a/", "is no repository name"],
  ["ghcr.io/ä", "is no repository name"],
  ["ghcr.io/a b", "is no repository name"],
  ["ghcr.io/../x", "is no repository name"],
  ["ghcr.io/a?x=y", "is no repository name"],
  ["user:pw@ghcr.io/x", "is no HOST"],
  ["ghcr.io:0/x", "is no HOST"],
  ["ghcr.io:65536/x", "is no HOST"],
  ["-a.b/x", "is no HOST"],
  ["a..b/x", "is no HOST"],
  ["[::1/x", "is no HOST"],
  [`ghcr.io/${"a".repeat(260)}`, "longer than 255"],
  [`${"a".repeat(260)}/b`, "longer than 255"],
])("%j is refused with a hint", (text, message) => {
  const error = thrownBy(() => parseReference(text));
  expect(error).toMatchObject({ code: "reference", message: expect.stringContaining(message) });
  expect(error.hint).toMatch(/^[A-Z].*\.$/);
});

test("whoever writes out the cache of a name that no registry has is told what it is called", () => {
  const error = thrownBy(() => parseReference("ghcr.io/Owner/.GitHub/nix-cache"));
  expect(error.hint).toBe("Write owner/.github, which stands for ghcr.io/owner/github-xbdcc6a2a/nix-cache.");
});

test("hosts on this machine", () => {
  for (const host of ["localhost", "localhost:1", "127.0.0.1", "127.255.0.1:80", "[::1]", "[::1]:5000"]) {
    expect(isLoopback(host)).toBe(true);
  }
  for (const host of [
    "localhost.example",
    "127.example.com",
    "1127.0.0.1",
    "[::2]",
    "ghcr.io",
    "127.0.0.1.nip.io",
  ]) {
    expect(isLoopback(host)).toBe(false);
  }
});

test("tags", () => {
  for (const tag of ["a", "_x", "seg-2026-01-01T00.00.00Z-ab", "A".repeat(128)])
    expect(isTag(tag)).toBe(true);
  for (const tag of ["", ".a", "-a", "a/b", "a b", "a\n", "a%2f", "A".repeat(129), "ä"])
    expect(isTag(tag)).toBe(false);
});

test("a host of one word is told from the owner of a repository", () => {
  const reference = parseReference("https://registry/name");
  expect(reference).toMatchObject({ host: "registry", repository: "name" });
  expect(formatReference(reference)).toBe("https://registry/name");
});

describe("properties", () => {
  const component = fc
    .tuple(fc.stringMatching(/^[a-z0-9]{1,5}$/), fc.constantFrom("", ".x", "_y", "__z", "-w", "---v"))
    .map(([a, b]) => a + b);
  const repository = fc.array(component, { minLength: 1, maxLength: 5 }).map((parts) => parts.join("/"));
  const host = fc
    .tuple(
      fc.oneof(
        fc.domain(),
        fc.ipV4(),
        fc.ipV6().map((ip) => `[${ip.toLowerCase()}]`),
        fc.constantFrom("localhost", "[::1]", "registry"),
      ),
      fc.option(fc.integer({ min: 1, max: 65535 })),
    )
    .map(([name, port]) => (port === null ? name.toLowerCase() : `${name.toLowerCase()}:${port}`))
    // fast-check makes IPv6 addresses that no URL may have.
    .filter((name) => name.length < 200 && URL.canParse(`https://${name}`));
  const path = fc
    .tuple(fc.constantFrom("/", "./", "../", ""), fc.stringMatching(/^[^\0:]{1,30}$/))
    .map(([start, rest]) => start + rest);
  const reference: fc.Arbitrary<CacheReference> = fc.oneof(
    fc.record({
      kind: fc.constant("registry" as const),
      scheme: fc.constantFrom("https" as const, "http" as const),
      host,
      repository,
    }),
    fc.record({ kind: fc.constant("layout" as const), path }),
  );

  test("what is formatted is read back as the same", () => {
    fc.assert(
      fc.property(reference, (value) => {
        expect(parseReference(formatReference(value))).toEqual(value);
      }),
    );
  });

  test("any text is a reference that formats to itself again, or a reference error", () => {
    const text = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.stringMatching(/^[a-zA-Z0-9.:/@_[\]-]{0,40}$/),
      fc.string().map((rest) => `https://${rest}`),
    );
    fc.assert(
      fc.property(text, (value) => {
        let parsed: CacheReference;
        try {
          parsed = parseReference(value);
        } catch (error) {
          expect(error).toMatchObject({ code: "reference" });
          return;
        }
        expect(parseReference(formatReference(parsed))).toEqual(parsed);
        if (parsed.kind === "registry") {
          // What becomes an address means the same host and path there.
          const url = new URL(`${parsed.scheme}://${parsed.host}/v2/${parsed.repository}/x`);
          expect(url.pathname).toBe(`/v2/${parsed.repository}/x`);
          expect(url.username + url.search + url.hash).toBe("");
        }
      }),
    );
  });
});

function thrownBy(action: () => unknown): NixcacheError {
  try {
    action();
  } catch (error) {
    if (error instanceof NixcacheError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

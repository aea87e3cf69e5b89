import { describe, expect, test } from "bun:test";
import type { Digest } from "../../../src/oci/digest.ts";
import { gitHubPackages } from "../../../src/oci/github-packages.ts";
import { PATIENT } from "../../../src/oci/retry.ts";
import {
  type GitHubDouble,
  type GitHubDoubleOptions,
  message,
  startGitHub,
} from "../../support/github-packages-double.ts";
import { type TestNetwork, testNetwork } from "./network.ts";

const digest = (n: number): Digest => `sha256:${String(n).padStart(64, "0")}` as Digest;

/** A package of `count` versions, of which version n has the digest n and the tag `t-n`. */
function makePackage(count: number) {
  const manifests = new Map<string, { mediaType: string; bytes: Uint8Array }>();
  const tags = new Map<string, string>();
  for (let n = 0; n < count; n++) {
    manifests.set(digest(n), { mediaType: "", bytes: new Uint8Array() });
    tags.set(`t-${n}`, digest(n));
  }
  return { manifests, tags };
}

interface Bench {
  readonly double: GitHubDouble;
  readonly registry: ReturnType<typeof makePackage>;
  readonly network: TestNetwork;
  readonly packages: ReturnType<typeof gitHubPackages>;
}

async function withPackage(
  count: number,
  body: (bench: Bench) => Promise<void>,
  options: GitHubDoubleOptions & { password?: string | undefined } = {},
): Promise<void> {
  const registry = makePackage(count);
  const double = startGitHub(registry, options);
  const network = testNetwork();
  const password = "password" in options ? options.password : "ghp_secret";
  const packages = gitHubPackages(
    { api: new URL(double.url), owner: "owner", name: "repo/nix-cache" },
    {
      credentials: async () =>
        password === undefined ? undefined : { kind: "password", username: "x", password },
      policy: PATIENT,
      network,
      userAgent: "nixcache/test",
    },
  );
  try {
    await body({ double, registry, network, packages });
  } finally {
    double.close();
  }
}

describe("deleting at GitHub", () => {
  test.each<["Organization" | "User", string]>([
    ["Organization", "/orgs/owner"],
    ["User", "/users/owner"],
  ])("of a package of an %s: finds the version by its digest and deletes it by its id", (ownerType, folder) =>
    withPackage(
      3,
      async ({ double, registry, packages }) => {
        expect(await packages.deleteManifest(digest(1))).toBe(true);
        expect([...registry.manifests.keys()]).toEqual([digest(0), digest(2)]);
        expect([...registry.tags.keys()]).toEqual(["t-0", "t-2"]);
        expect(double.requests.map(({ method, path }) => `${method} ${path}`)).toEqual([
          "GET /users/owner",
          `GET ${folder}/packages/container/repo%2Fnix-cache/versions?state=active&per_page=100`,
          `DELETE ${folder}/packages/container/repo%2Fnix-cache/versions/7000001`,
        ]);
        for (const { headers } of double.requests) {
          expect(headers.get("authorization")).toBe("Bearer ghp_secret");
          expect(headers.get("x-github-api-version")).toBe("2022-11-28");
          expect(headers.get("accept")).toBe("application/vnd.github+json");
        }
      },
      { ownerType },
    ),
  );

  test("lists once, over all pages, and pauses between deletions", () =>
    withPackage(250, async ({ double, network, packages }) => {
      for (const n of [0, 120, 249]) expect(await packages.deleteManifest(digest(n))).toBe(true);
      expect(double.count("GET", /versions\?/)).toBe(3);
      expect(network.sleeps).toEqual([1000, 1000]);
    }));

  test("below a path, as GitHub Enterprise Server has it", () =>
    withPackage(2, async ({ packages }) => expect(await packages.deleteManifest(digest(0))).toBe(true), {
      prefix: "/api/v3",
    }));

  test("looks once more for what was pushed since, then leaves it to the next run", () =>
    withPackage(2, async ({ double, registry, packages }) => {
      await packages.deleteManifest(digest(0));
      registry.manifests.set(digest(7), { mediaType: "", bytes: new Uint8Array() });
      expect(await packages.deleteManifest(digest(7))).toBe(true);
      expect(await packages.deleteManifest(digest(8))).toMatchObject({ everything: false });
      expect(double.count("GET", /versions\?/)).toBe(2);
    }));

  test("what another run has deleted meanwhile is no longer there, which is no refusal", () =>
    withPackage(3, async ({ registry, packages }) => {
      await packages.deleteManifest(digest(0));
      registry.manifests.delete(digest(1));
      expect(await packages.deleteManifest(digest(1))).toBe(false);
    }));

  test("versions without a tag are listed", () =>
    withPackage(3, async ({ registry, packages }) => {
      registry.tags.delete("t-1");
      expect(await packages.listUntagged()).toEqual([digest(1)]);
    }));
});

describe("what GitHub does not allow", () => {
  test.each<[string, number, GitHubDoubleOptions & { password?: string | undefined }, RegExp, boolean]>([
    ["the last version with a tag", 1, {}, /400 \(You cannot delete the last tagged version/, false],
    [
      "a version with over 5000 downloads",
      2,
      { popular: new Set([digest(0)]) },
      /more than 5000 downloads/,
      false,
    ],
    [
      "without the role of an administrator",
      2,
      { right: "read" },
      /does not let it delete; .*Manage Actions access/,
      true,
    ],
    [
      "without any right to the package",
      2,
      { right: "none" },
      /shows no package owner\/repo\/nix-cache .*delete:packages/,
      true,
    ],
    [
      "with a token that is none",
      2,
      { password: "expired" },
      /does not take the token .*401 \(Bad credentials\)/,
      true,
    ],
    ["without a token", 2, { password: undefined }, /no token/, true],
  ])("%s: refused, in words", (_, count, options, reason, everything) =>
    withPackage(
      count,
      async ({ registry, packages }) => {
        const answer = await packages.deleteManifest(digest(0));
        expect(answer).toEqual({ refused: expect.stringMatching(reason), everything });
        expect(registry.manifests.has(digest(0))).toBe(true);
        expect(JSON.stringify(answer)).not.toContain("ghp_secret");
      },
      options,
    ),
  );

  test("who may not look may not list either", () =>
    withPackage(2, async ({ packages }) => expect(await packages.listUntagged()).toEqual([]), {
      right: "none",
    }));
});

describe("rate limits", () => {
  const CLOCK = Date.UTC(2026, 0, 1);
  const reset = (ms: number) => ({
    "x-ratelimit-remaining": "0",
    "x-ratelimit-reset": String((CLOCK + ms) / 1000),
  });

  test.each<[string, () => Response, number]>([
    ["Retry-After", () => message(429, "Too many", { "retry-after": "30" }), 30_000],
    ["Retry-After with 403", () => message(403, "secondary rate limit", { "retry-after": "5" }), 5_000],
    [
      "x-ratelimit-reset, by GitHub's own clock",
      () =>
        message(403, "API rate limit exceeded", {
          ...reset(3_600_000),
          date: new Date(CLOCK + 3_590_000).toUTCString(),
        }),
      10_000,
    ],
    [
      "a secondary limit that names no time",
      () => message(403, "You have exceeded a secondary rate limit."),
      60_000,
    ],
  ])("%s: waits as long as that, and goes on", (_, limited, waited) =>
    withPackage(2, async ({ double, network, packages }) => {
      let first = true;
      double.faults.push(({ method }) => {
        if (method !== "DELETE" || !first) return undefined;
        first = false;
        return limited();
      });
      expect(await packages.deleteManifest(digest(0))).toBe(true);
      expect(network.sleeps).toEqual([waited]);
    }),
  );

  test("that end later than a run waits: refused for now, and nothing more is asked", () =>
    withPackage(3, async ({ double, network, packages }) => {
      double.faults.push(() =>
        message(403, "API rate limit exceeded", { ...reset(3_000_000), date: new Date(CLOCK).toUTCString() }),
      );
      expect(await packages.deleteManifest(digest(0))).toEqual({
        refused: "GitHub's rate limit is used up until 2026-01-01T00:50:00.000Z; the next run goes on",
        everything: true,
      });
      expect(network.sleeps).toEqual([]);
      expect(double.requests.length).toBe(1);
    }));

  test("that never end: refused for now", () =>
    withPackage(3, async ({ double, packages }) => {
      double.faults.push(({ method }) => (method === "DELETE" ? message(429, "Too many") : undefined));
      expect(await packages.deleteManifest(digest(0))).toMatchObject({
        refused: expect.stringContaining("the next run goes on"),
        everything: true,
      });
    }));
});

describe("what is no answer of GitHub's", () => {
  test("a failure is tried again, then an error", () =>
    withPackage(2, async ({ double, packages }) => {
      let failures = 2;
      double.faults.push(() => (failures-- > 0 ? new Response("bad gateway", { status: 502 }) : undefined));
      expect(await packages.deleteManifest(digest(0))).toBe(true);
      double.faults.push(() => new Response("bad gateway", { status: 502 }));
      await expect(packages.deleteManifest(digest(1))).rejects.toMatchObject({ code: "unreachable" });
    }));

  test("a failure of what is asked once is no answer for the next deletion", () =>
    withPackage(2, async ({ double, packages }) => {
      let down = true;
      double.faults.push(() => (down ? new Response("bad gateway", { status: 502 }) : undefined));
      await expect(packages.deleteManifest(digest(0))).rejects.toMatchObject({ code: "unreachable" });
      down = false;
      expect(await packages.deleteManifest(digest(0))).toBe(true);
    }));

  test.each<[string, unknown]>([
    ["another JSON", { versions: [] }],
    ["a version without an id", [{ name: digest(0), metadata: { container: { tags: [] } } }]],
    ["a version without its tags", [{ name: digest(0), id: 1, metadata: {} }]],
  ])("%s is an error", (_, json) =>
    withPackage(2, async ({ double, packages }) => {
      double.faults.push(({ path }) => (path.includes("versions?") ? Response.json(json) : undefined));
      await expect(packages.deleteManifest(digest(0))).rejects.toMatchObject({ code: "protocol" });
    }),
  );

  test("a list that goes on elsewhere is an error, and a redirect elsewhere gets no token", () =>
    withPackage(2, async ({ double, packages }) => {
      const seen: Headers[] = [];
      using elsewhere = Bun.serve({
        hostname: "127.0.0.1",
        port: 0,
        fetch(request) {
          seen.push(request.headers);
          return Response.json([]);
        },
      });
      const away = `${elsewhere.url.origin}/versions`;
      double.faults.push(({ path }) =>
        path.includes("versions?")
          ? Response.json([], { headers: { link: `<${away}>; rel="next"` } })
          : undefined,
      );
      await expect(packages.deleteManifest(digest(0))).rejects.toMatchObject({ code: "protocol" });
      expect(seen).toEqual([]);
      double.faults.splice(0, 1, ({ path }) =>
        path.includes("versions?")
          ? new Response(null, { status: 307, headers: { location: away } })
          : undefined,
      );
      expect(await packages.deleteManifest(digest(0))).toMatchObject({ everything: false });
      expect(seen.length).toBeGreaterThan(0);
      expect(seen.map((headers) => headers.get("authorization"))).toEqual(seen.map(() => null));
    }));
});

import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import {
  byteSize,
  cacheReference,
  clientUrl,
  credentialSources,
  gcPolicy,
  gitHubPackage,
  indexFile,
  indexTtlMs,
  journalDirectory,
  listenAddress,
  narCache,
  nixConfFile,
  outputsOrigin,
  publishOrigin,
  queueDirectory,
  retryPolicy,
  signingKeySource,
  upstreamKeys,
  upstreamUrls,
  writeToken,
} from "../../../src/config.ts";
import { formatReference } from "../../../src/oci/reference.ts";
import { BRISK, PATIENT } from "../../../src/oci/retry.ts";

const HOME = { HOME: "/home/u" };

describe("the cache reference", () => {
  test.each([
    ["a flag", "o/r", { NIXCACHE_CACHE: "x/y" }, "ghcr.io/o/r/nix-cache"],
    ["NIXCACHE_CACHE", undefined, { NIXCACHE_CACHE: "/srv/cache", NIXCACHE_REPO: "o/r" }, "/srv/cache"],
    ["NIXCACHE_REPO", undefined, { NIXCACHE_REPO: "Owner/Repo" }, "ghcr.io/owner/repo/nix-cache"],
    [
      "NIXCACHE_REPO and NIXCACHE_REGISTRY",
      undefined,
      { NIXCACHE_REPO: "Owner/Repo", NIXCACHE_REGISTRY: "127.0.0.1:5000" },
      "127.0.0.1:5000/owner/repo/nix-cache",
    ],
    [
      "GitHub Actions",
      undefined,
      { GITHUB_ACTIONS: "true", GITHUB_REPOSITORY: "Owner/Repo" },
      "ghcr.io/owner/repo/nix-cache",
    ],
    [
      "GitHub Actions and NIXCACHE_REGISTRY",
      undefined,
      { GITHUB_ACTIONS: "true", GITHUB_REPOSITORY: "Owner/Repo", NIXCACHE_REGISTRY: "127.0.0.1:5000" },
      "127.0.0.1:5000/owner/repo/nix-cache",
    ],
    ["the data folder", undefined, { XDG_DATA_HOME: "/data" }, "/data/nixcache/cache"],
    ["the home folder", undefined, { NIXCACHE_CACHE: "" }, "/home/u/.local/share/nixcache/cache"],
  ])("comes from %s", (_, flag, env, expected) => {
    expect(formatReference(cacheReference(flag, { ...HOME, ...env }))).toBe(expected);
  });
});

test("two folders of the same relative name are two caches", () => {
  const one = indexFile({ kind: "layout", path: "./cache" }, HOME);
  expect(one).toBe(indexFile({ kind: "layout", path: join(process.cwd(), "cache") }, HOME));
  expect(one).not.toBe(indexFile({ kind: "layout", path: "/elsewhere/cache" }, HOME));
});

test("each cache has a journal of its own, among what is state and not cache", () => {
  const one = cacheReference("/a", HOME);
  expect(journalDirectory(one, HOME)).not.toBe(journalDirectory(cacheReference("/b", HOME), HOME));
  const folder = (env: Record<string, string>) =>
    journalDirectory(one, { ...HOME, ...env }).replace(/\/[^/]+$/, "");
  expect(folder({})).toBe("/home/u/.local/state/nixcache");
  expect(folder({ XDG_STATE_HOME: "/s", NIXCACHE_INDEX_DIR: "/i" })).toBe("/s/nixcache");
  expect(folder({ XDG_STATE_HOME: "/s", STATE_DIRECTORY: "/var/lib/a:/var/lib/b" })).toBe("/var/lib/a");
  expect(folder({ STATE_DIRECTORY: "/var/lib/a", NIXCACHE_JOURNAL_DIR: "/j" })).toBe("/j");
});

test("each cache and each store has a queue of what was built", () => {
  const one = cacheReference("/a", HOME);
  const queue = queueDirectory(one, undefined, HOME);
  expect(queue).toStartWith("/home/u/.local/state/nixcache/watch-");
  expect(queueDirectory(one, undefined, { ...HOME, XDG_STATE_HOME: "/s" })).toStartWith("/s/nixcache/watch-");
  expect(queueDirectory(cacheReference("/b", HOME), undefined, HOME)).not.toBe(queue);
  expect(queueDirectory(one, "/chroot", HOME)).not.toBe(queue);
  expect(queueDirectory(one, "/chroot", HOME)).toBe(
    queueDirectory(one, undefined, { ...HOME, NIX_REMOTE: "/chroot" }),
  );
});

test("the token for writing: the flag's file, the token itself, its file", () => {
  const env = { NIXCACHE_WRITE_TOKEN: "t", NIXCACHE_WRITE_TOKEN_FILE: "/g" };
  expect(writeToken("/f", env)).toEqual({ file: "/f", from: "--write-token-file" });
  expect(writeToken(undefined, env)).toEqual({ text: "t" });
  expect(writeToken(undefined, { ...env, NIXCACHE_WRITE_TOKEN: "" })).toEqual({
    file: "/g",
    from: "NIXCACHE_WRITE_TOKEN_FILE",
  });
  expect(writeToken(undefined, { NIXCACHE_WRITE_TOKEN: "" })).toBeUndefined();
});

test("each cache has an index file of its own, in the folder that is set", () => {
  const one = cacheReference("/a", HOME);
  const two = cacheReference("/b", HOME);
  expect(indexFile(one, HOME)).not.toBe(indexFile(two, HOME));
  const folder = (env: Record<string, string>) => indexFile(one, { ...HOME, ...env }).replace(/\/[^/]+$/, "");
  expect(folder({})).toBe("/home/u/.cache/nixcache");
  expect(folder({ XDG_CACHE_HOME: "/c" })).toBe("/c/nixcache");
  expect(folder({ XDG_CACHE_HOME: "/c", CACHE_DIRECTORY: "/var/cache/a:/var/cache/b" })).toBe("/var/cache/a");
  expect(folder({ CACHE_DIRECTORY: "/var/cache/a", NIXCACHE_INDEX_DIR: "/i" })).toBe("/i");
});

test.each([
  [undefined, {}, ["https://cache.nixos.org"]],
  [undefined, { NIXCACHE_UPSTREAM: "https://a  https://b" }, ["https://a", "https://b"]],
  [undefined, { NIXCACHE_UPSTREAM: "" }, []],
  [[""], { NIXCACHE_UPSTREAM: "https://a" }, []],
  [["https://c"], { NIXCACHE_UPSTREAM: "https://a" }, ["https://c"]],
])("upstreams of %j and %j", (flags, env, expected) => {
  expect(upstreamUrls(flags, env)).toEqual(expected);
});

test("the signing key: the flag, the key itself, the file", () => {
  const env = { NIX_SIGNING_KEY: "k:x", NIXCACHE_SIGNING_KEY_FILE: "/f" };
  expect(signingKeySource("/flag", env)).toEqual({ file: "/flag" });
  expect(signingKeySource(undefined, env)).toEqual({ text: "k:x", from: "NIX_SIGNING_KEY" });
  expect(signingKeySource(undefined, { ...env, NIX_SIGNING_KEY: "" })).toEqual({ file: "/f" });
  expect(signingKeySource(undefined, {})).toBeUndefined();
});

test("where to listen", () => {
  expect(listenAddress({}, {})).toEqual({ hostname: "127.0.0.1", port: 37515 });
  expect(listenAddress({}, { NIXCACHE_PORT: "0", NIXCACHE_LISTEN: "::1" })).toEqual({
    hostname: "::1",
    port: 0,
  });
  expect(listenAddress({ port: "8080" }, { NIXCACHE_PORT: "0" }).port).toBe(8080);
  expect(() => listenAddress({ listen: "" }, {})).toThrow("expected an address");
  for (const port of ["65536", "-1", "http", "1e3", "8080 "]) {
    expect(() => listenAddress({ port }, {})).toThrow(`--port: got "${port}"`);
  }
});

test("numbers and sizes", () => {
  expect(indexTtlMs(undefined, { NIXCACHE_INDEX_TTL: "60" })).toBe(60_000);
  expect(() => indexTtlMs("0", {})).toThrow("from 1 to 86400");
  expect(["1024", "1k", "16M", "16MiB", "1G"].map((size) => byteSize("--part-size", size, 0, 1))).toEqual([
    1024,
    1024,
    16 << 20,
    16 << 20,
    1 << 30,
  ]);
  expect(byteSize("--part-size", undefined, 7, 1)).toBe(7);
  for (const size of ["", "M", "1.5G", "-1", "1X", "0"]) {
    expect(() => byteSize("--part-size", size, 0, 1)).toThrow("expected a size");
  }
});

test("the disk cache is off unless a folder is named", () => {
  const none = { directory: undefined, size: undefined };
  expect(narCache(none, {})).toBeUndefined();
  expect(narCache({ ...none, directory: "" }, { NIXCACHE_NAR_CACHE: "/v" })).toBeUndefined();
  expect(narCache(none, { NIXCACHE_NAR_CACHE_SIZE: "1G" })).toBeUndefined();
  expect(narCache({ ...none, directory: "/d" }, {})).toEqual({ directory: "/d", limit: 20 * 1024 ** 3 });
  const env = { NIXCACHE_NAR_CACHE: "v", NIXCACHE_NAR_CACHE_SIZE: "1G" };
  expect(narCache(none, env)).toEqual({ directory: join(process.cwd(), "v"), limit: 1024 ** 3 });
  expect(narCache({ directory: "/d", size: "16M" }, env)).toEqual({ directory: "/d", limit: 16 * 1024 ** 2 });
  expect(() => narCache({ directory: "/d", size: "1M" }, {})).toThrow("--nar-cache-size: got");
  expect(() => narCache({ ...none, size: "1G" }, {})).toThrow("expected --nar-cache");
});

test("helpers of credentials are not given what only nixcache uses", () => {
  const env = { NIX_SIGNING_KEY: "k:s", NIXCACHE_WRITE_TOKEN: "t", AWS_PROFILE: "me", PATH: "/bin" };
  expect(credentialSources(env).helperEnvironment).toEqual({ AWS_PROFILE: "me", PATH: "/bin" });
});

test("tokens and origin from GitHub", () => {
  const env = { HOME: "/home/u", GITHUB_TOKEN: "a", GH_TOKEN: "b", DOCKER_CONFIG: "/d" };
  expect(credentialSources(env)).toMatchObject({
    githubToken: "a",
    ghToken: "b",
    home: "/home/u",
    dockerConfig: "/d",
  });
  expect(publishOrigin({})).toEqual({ source: "paths" });
  expect(
    publishOrigin({
      GITHUB_ACTIONS: "true",
      GITHUB_REPOSITORY: "o/r",
      GITHUB_SHA: "abc",
      GITHUB_RUN_ID: "7",
    }),
  ).toEqual({
    source: "paths",
    repository: "https://github.com/o/r",
    revision: "abc",
    run: "https://github.com/o/r/actions/runs/7",
  });
});

describe("the retry policy", () => {
  test("is the command's own where nothing is set", () => {
    expect(retryPolicy(PATIENT, HOME)).toEqual(PATIENT);
    expect(retryPolicy(BRISK, { NIXCACHE_RETRY_WAIT: "" })).toEqual(BRISK);
  });

  test("takes counts and times from the environment", () => {
    const env = {
      NIXCACHE_RETRY_ATTEMPTS: "3",
      NIXCACHE_RETRY_BUDGET: "2h",
      NIXCACHE_STALL_TIMEOUT: "250ms",
    };
    const changed = { attempts: 3, faultAttempts: 3, budgetMs: 7_200_000, stallTimeoutMs: 250 };
    expect(retryPolicy(PATIENT, env)).toEqual({ ...PATIENT, ...changed });
  });

  test.each(["0", "5", "-1s", "0s", "1.5s", "5 s", "5d", "600h"])("refuses %s as a time", (given) => {
    const set = () => retryPolicy(PATIENT, { NIXCACHE_RETRY_WAIT: given });
    expect(set).toThrow(`NIXCACHE_RETRY_WAIT: got "${given}", expected a time`);
  });
});

describe("GitHub's packages API", () => {
  test.each<[string, string | undefined, string | undefined]>([
    ["owner/repo", undefined, "https://api.github.com/ owner repo/nix-cache"],
    ["owner/repo", "https://api.github.com", "https://api.github.com/ owner repo/nix-cache"],
    ["owner/repo", "https://git.example.org/api/v3", "https://api.github.com/ owner repo/nix-cache"],
    [
      "containers.git.example.org/o/r/c",
      "https://git.example.org/api/v3",
      "https://git.example.org/api/v3 o r/c",
    ],
    ["containers.sub.ghe.com/o/c", "https://api.sub.ghe.com", "https://api.sub.ghe.com/ o c"],
    ["containers.git.example.org/o/r/c", "http://git.example.org/api/v3", undefined],
    ["containers.git.example.org/o/r/c", "https://evil.example.org/api/v3", undefined],
    ["containers.git.example.org/o/r/c", undefined, undefined],
    ["registry.example.org/o/r", "https://api.github.com", undefined],
    ["github.com.example.org/o/r", undefined, undefined],
    ["ghcr.io/package", undefined, undefined],
    ["./folder", undefined, undefined],
    ["owner/repo", "no URL", "https://api.github.com/ owner repo/nix-cache"],
  ])("of %p with GITHUB_API_URL=%p is %p", (cache, api, expected) => {
    const found = gitHubPackage(cacheReference(cache, {}), { GITHUB_API_URL: api });
    expect(found && `${found.api.href} ${found.owner} ${found.name}`).toBe(expected as string);
  });
});

test("what gc keeps, by its flags", () => {
  const none = {
    retentionDays: undefined,
    keepLast: undefined,
    keepBranches: undefined,
    dropBranches: undefined,
  };
  expect(gcPolicy({ ...none, maxSize: undefined })).toEqual({
    retentionMs: 30 * 86_400_000,
    keepLast: 1,
    keepBranches: [],
    dropBranches: [],
  });
  const given = { retentionDays: "7", keepLast: "3", keepBranches: ["main"], dropBranches: ["x/**"] };
  expect(gcPolicy({ ...given, maxSize: "10G" })).toEqual({
    retentionMs: 7 * 86_400_000,
    keepLast: 3,
    keepBranches: ["main"],
    dropBranches: ["x/**"],
    maxBytes: 10 * 1024 ** 3,
  });
});

describe("the origin of outputs", () => {
  const checkout = { folder: "/f", origin: "https://h/o/r", branch: "main", revision: "abc" };
  const actions = { GITHUB_ACTIONS: "true", GITHUB_REPOSITORY: "o/r" };
  const repository = "https://github.com/o/r";

  test.each([
    ["nothing known", {}, undefined, { source: "paths" }],
    ["a checkout without origin", {}, { ...checkout, origin: undefined }, { source: "paths" }],
    [
      "a checkout",
      {},
      checkout,
      { source: "https://h/o/r#main", repository: "https://h/o/r", branch: "main", revision: "abc" },
    ],
    [
      "no branch",
      {},
      { ...checkout, branch: undefined },
      { source: "https://h/o/r", repository: "https://h/o/r", revision: "abc" },
    ],
    [
      "a branch in Actions, whatever the checkout",
      { ...actions, GITHUB_REF_NAME: "main", GITHUB_HEAD_REF: "" },
      checkout,
      { source: `${repository}#main`, repository, branch: "main" },
    ],
    [
      "a pull request",
      { ...actions, GITHUB_REF_NAME: "12/merge", GITHUB_HEAD_REF: "main" },
      undefined,
      { source: `${repository}#12/merge`, repository, branch: "main" },
    ],
  ])("%s", (_, env, found, expected) => {
    expect(outputsOrigin(env, found)).toEqual(expected);
  });
});

describe("keys of upstreams", () => {
  const DEFAULT = "https://cache.nixos.org";
  const KEY = `other-1:${Buffer.alloc(32).toString("base64")}`;
  const names = (flags: string[] | undefined, urls: string[], env = {}) =>
    upstreamKeys(flags, urls, env).map(({ name }) => name);

  test.each([
    ["the well-known one", undefined, [DEFAULT], {}, ["cache.nixos.org-1"]],
    ["with a slash behind it", undefined, [`${DEFAULT}/`], {}, ["cache.nixos.org-1"]],
    ["none without that upstream", undefined, ["https://other"], {}, []],
    ["a variable", undefined, [], { NIXCACHE_UPSTREAM_KEYS: ` ${KEY}\n` }, ["other-1"]],
    ["flags over it", [KEY], [DEFAULT], { NIXCACHE_UPSTREAM_KEYS: "x" }, ["other-1", "cache.nixos.org-1"]],
    ["none at all", [""], [], { NIXCACHE_UPSTREAM_KEYS: KEY }, []],
  ])("%s", (_, flags, urls, env, expected) => {
    expect(names(flags, urls, env)).toEqual(expected);
  });

  test("that are none", () => {
    expect(() => names(["x"], [])).toThrow(/upstream key: got no colon/);
  });
});

describe("where clients find serve", () => {
  const none = { url: undefined, port: undefined };

  test.each<[string, typeof none | object, Record<string, string>, string]>([
    ["by default", none, {}, "http://127.0.0.1:37515"],
    ["at a port", { port: "8080" }, { NIXCACHE_PORT: "1" }, "http://127.0.0.1:8080"],
    ["where it is told to listen", none, { NIXCACHE_LISTEN: "::1", NIXCACHE_PORT: "1" }, "http://[::1]:1"],
    [
      "on this machine when it listens everywhere",
      none,
      { NIXCACHE_LISTEN: "0.0.0.0" },
      "http://127.0.0.1:37515",
    ],
    ["elsewhere", { url: "https://cache.lan/nix/" }, { NIXCACHE_PORT: "1" }, "https://cache.lan/nix"],
  ])("%s", (_, flags, env, expected) => {
    expect(clientUrl({ ...none, ...flags }, env)).toBe(expected);
  });

  test.each([
    "cache.lan",
    "ftp://x",
    "http://",
    "http://x y",
    "http://x#y",
    "http://x\nrequire-sigs = false",
  ])("%j is refused", (url) => {
    expect(() => clientUrl({ ...none, url }, {})).toThrow("--url: got");
  });

  test("not at two places", () => {
    expect(() => clientUrl({ url: "http://x", port: "1" }, {})).toThrow("exclude each other");
  });
});

describe("nix.conf", () => {
  test.each<["user" | "system", Record<string, string>, string | undefined, string]>([
    ["user", HOME, undefined, "/home/u/.config/nix/nix.conf"],
    ["user", { ...HOME, XDG_CONFIG_HOME: "/x" }, undefined, "/x/nix/nix.conf"],
    ["user", { ...HOME, XDG_CONFIG_HOME: "/x", NIX_USER_CONF_FILES: "/a:/b" }, "2.8.0", "/a"],
    ["user", { ...HOME, NIX_CONFIG_HOME: "/c" }, "2.26.3", "/c/nix.conf"],
    ["user", { ...HOME, NIX_CONFIG_HOME: "/c" }, "2.30.0pre20250101_abc", "/c/nix.conf"],
    ["user", { ...HOME, NIX_CONFIG_HOME: "/c" }, "2.8.0", "/home/u/.config/nix/nix.conf"],
    ["user", { ...HOME, NIX_CONFIG_HOME: "/c" }, undefined, "/home/u/.config/nix/nix.conf"],
    ["system", HOME, undefined, "/etc/nix/nix.conf"],
    ["system", { ...HOME, NIX_CONF_DIR: "/d" }, undefined, "/d/nix.conf"],
  ])("of the %s with %j and Nix %s", (of, env, version, expected) => {
    expect(nixConfFile(of, env, version)).toBe(expected);
  });
});

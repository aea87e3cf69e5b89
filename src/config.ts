/**
 * Configuration: what flags and environment variables mean. Flags win over the environment. Pure; `main.ts`
 * hands in `process.env`, which nothing else reads.
 */
import { homedir, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { NixcacheError } from "./errors.ts";
import type { KeySource } from "./nar/key-file.ts";
import type { Environment } from "./nix/location.ts";
import type { CredentialSources } from "./oci/credentials.ts";
import { digestHex, digestOf } from "./oci/digest.ts";
import { type CacheReference, formatReference, parseReference } from "./oci/reference.ts";
import type { RetryPolicy } from "./oci/retry.ts";

export type { Environment };

export const DEFAULT_UPSTREAM = "https://cache.nixos.org";
export const DEFAULT_PORT = 37515;
export const DEFAULT_LISTEN = "127.0.0.1";
export const DEFAULT_INDEX_TTL_S = 300;
export const DEFAULT_PART_BYTES = 1024 ** 3;

const TIME_UNITS_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** The variables that change a retry policy, by what they change. */
const RETRY_DURATIONS = {
  floorMs: "NIXCACHE_RETRY_WAIT",
  capMs: "NIXCACHE_RETRY_MAX_WAIT",
  secondaryLimitMs: "NIXCACHE_RETRY_LIMIT_WAIT",
  budgetMs: "NIXCACHE_RETRY_BUDGET",
  connectTimeoutMs: "NIXCACHE_CONNECT_TIMEOUT",
  stallTimeoutMs: "NIXCACHE_STALL_TIMEOUT",
  answerTimeoutMs: "NIXCACHE_ANSWER_TIMEOUT",
} as const satisfies Partial<Record<keyof RetryPolicy, string>>;

const BYTE_UNITS: Record<string, number> = { "": 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3, T: 1024 ** 4 };

/** A variable that is set and not empty. */
function variable(env: Environment, name: string): string | undefined {
  return env[name] || undefined;
}

/**
 * The cache: `--cache`, NIXCACHE_CACHE, NIXCACHE_REPO (with NIXCACHE_REGISTRY), the repository's GHCR package
 * in GitHub Actions, and otherwise a layout under the user's data folder.
 */
export function cacheReference(flag: string | undefined, env: Environment): CacheReference {
  const given = flag ?? variable(env, "NIXCACHE_CACHE");
  if (given !== undefined) return parseReference(given);
  const repository = variable(env, "NIXCACHE_REPO");
  if (repository !== undefined) {
    const registry = variable(env, "NIXCACHE_REGISTRY");
    return parseReference(registry ? `${registry}/${repository}/nix-cache`.toLowerCase() : repository);
  }
  const actions = variable(env, "GITHUB_ACTIONS") === "true" && variable(env, "GITHUB_REPOSITORY");
  if (actions) return parseReference(actions);
  const data = variable(env, "XDG_DATA_HOME") ?? join(home(env), ".local", "share");
  return { kind: "layout", path: join(data, "nixcache", "cache") };
}

/** The caches that serve answers from, each once, in the order given: `--cache`, else the one that others use. */
export function cacheReferences(flags: readonly string[] | undefined, env: Environment): CacheReference[] {
  const references = flags?.map((flag) => cacheReference(flag, env)) ?? [cacheReference(undefined, env)];
  const byFile = new Map(references.map((reference) => [indexFile(reference, env), reference]));
  return [...byFile.values()];
}

/** The file of the local index of one cache. */
export function indexFile(reference: CacheReference, env: Environment): string {
  // Two folders called ./cache are two caches.
  const name = reference.kind === "layout" ? resolve(reference.path) : formatReference(reference);
  const directory =
    variable(env, "NIXCACHE_INDEX_DIR") ??
    // systemd gives a list when a unit has several.
    variable(env, "CACHE_DIRECTORY")?.split(":")[0] ??
    join(variable(env, "XDG_CACHE_HOME") ?? join(home(env), ".cache"), "nixcache");
  return join(directory, `index-${digestHex(digestOf(name)).slice(0, 16)}.sqlite`);
}

/** Where blobs in the making are kept. */
export function spoolDirectory(env: Environment): string {
  return variable(env, "TMPDIR") ?? tmpdir();
}

/** `--upstream` (repeatable; `""` alone means none), NIXCACHE_UPSTREAM (space-separated), cache.nixos.org. */
export function upstreamUrls(flags: readonly string[] | undefined, env: Environment): string[] {
  const given = flags ?? env.NIXCACHE_UPSTREAM?.split(/\s+/) ?? [DEFAULT_UPSTREAM];
  return given.filter((url) => url !== "");
}

/** `--signing-key-file`, NIX_SIGNING_KEY (the key itself), NIXCACHE_SIGNING_KEY_FILE; undefined when none is set. */
export function signingKeySource(flag: string | undefined, env: Environment): KeySource | undefined {
  if (flag !== undefined) return { file: flag };
  const text = variable(env, "NIX_SIGNING_KEY");
  if (text !== undefined) return { text, from: "NIX_SIGNING_KEY" };
  const file = variable(env, "NIXCACHE_SIGNING_KEY_FILE");
  return file === undefined ? undefined : { file };
}

export interface ListenAddress {
  readonly hostname: string;
  readonly port: number;
}

export function listenAddress(
  flags: { listen?: string | undefined; port?: string | undefined },
  env: Environment,
): ListenAddress {
  const port = wholeNumber("--port", flags.port ?? variable(env, "NIXCACHE_PORT"), DEFAULT_PORT, 0, 65_535);
  if (flags.listen === "") throw new NixcacheError("usage", "--listen: got nothing, expected an address");
  return { hostname: flags.listen ?? variable(env, "NIXCACHE_LISTEN") ?? DEFAULT_LISTEN, port };
}

/** Milliseconds between two refreshes of the index. */
export function indexTtlMs(flag: string | undefined, env: Environment): number {
  const given = flag ?? variable(env, "NIXCACHE_INDEX_TTL");
  return wholeNumber("--index-ttl", given, DEFAULT_INDEX_TTL_S, 1, 86_400) * 1000;
}

/** How often and how patiently a command asks a registry: its own policy, changed by NIXCACHE_RETRY_… */
export function retryPolicy(own: RetryPolicy, env: Environment): RetryPolicy {
  const changed: { -readonly [K in keyof RetryPolicy]: RetryPolicy[K] } = { ...own };
  const name = "NIXCACHE_RETRY_ATTEMPTS";
  changed.attempts = wholeNumber(name, variable(env, name), own.attempts, 1, 1000);
  for (const [field, name] of Object.entries(RETRY_DURATIONS)) {
    const key = field as keyof typeof RETRY_DURATIONS;
    changed[key] = durationMs(name, variable(env, name), own[key]);
  }
  return changed;
}

/** Where credentials for registries may be. GitHub's tokens are for GitHub's registry alone (rule 7). */
export function credentialSources(env: Environment): CredentialSources {
  return {
    githubToken: env.GITHUB_TOKEN,
    ghToken: env.GH_TOKEN,
    githubActor: env.GITHUB_ACTOR,
    home: home(env),
    dockerConfig: env.DOCKER_CONFIG,
    xdgRuntimeDir: env.XDG_RUNTIME_DIR,
    xdgConfigHome: env.XDG_CONFIG_HOME,
    registryAuthFile: env.REGISTRY_AUTH_FILE,
  };
}

/** @throws `usage` when `given` is no whole number from `least` to `most`. */
export function wholeNumber(
  name: string,
  given: string | undefined,
  fallback: number,
  least: number,
  most: number,
): number {
  if (given === undefined) return fallback;
  const value = /^\d{1,15}$/.test(given) ? Number(given) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw new NixcacheError(
    "usage",
    `${name}: got ${JSON.stringify(given)}, expected a number from ${least} to ${most}`,
  );
}

/** Times such as `500ms`, `30s` or `15m`. @throws `usage` */
export function durationMs(name: string, given: string | undefined, fallback: number): number {
  if (given === undefined) return fallback;
  const [, digits, unit = ""] = /^(\d{1,9})(ms|s|m|h)$/.exec(given) ?? [];
  const ms = Number(digits) * (TIME_UNITS_MS[unit] ?? Number.NaN);
  // Timers take no more than 31 bits.
  if (ms > 0 && ms < 2 ** 31) return ms;
  throw new NixcacheError(
    "usage",
    `${name}: got ${JSON.stringify(given)}, expected a time such as 500ms, 30s or 15m, of less than 596h`,
  );
}

/** Sizes such as `512M` or `1G`, in powers of 1024. @throws `usage` */
export function byteSize(name: string, given: string | undefined, fallback: number, least: number): number {
  if (given === undefined) return fallback;
  const [, digits, unit = ""] = /^(\d{1,12})([KMGT]?)(?:i?B)?$/i.exec(given) ?? [];
  const size = Number(digits) * (BYTE_UNITS[unit.toUpperCase()] ?? Number.NaN);
  if (Number.isSafeInteger(size) && size >= least) return size;
  throw new NixcacheError(
    "usage",
    `${name}: got ${JSON.stringify(given)}, expected a size such as 512M or 1G, of at least ${least} bytes`,
  );
}

function home(env: Environment): string {
  return variable(env, "HOME") ?? homedir();
}

/** What is published and from where, as GitHub Actions tells it; elsewhere bare paths. */
export function publishOrigin(env: Environment): {
  source: string;
  repository?: string;
  revision?: string;
  run?: string;
} {
  const repository = variable(env, "GITHUB_REPOSITORY");
  if (variable(env, "GITHUB_ACTIONS") !== "true" || repository === undefined) return { source: "paths" };
  const server = variable(env, "GITHUB_SERVER_URL") ?? "https://github.com";
  const revision = variable(env, "GITHUB_SHA");
  const run = variable(env, "GITHUB_RUN_ID");
  return {
    source: "paths",
    repository: `${server}/${repository}`,
    ...(revision && { revision }),
    ...(run && { run: `${server}/${repository}/actions/runs/${run}` }),
  };
}

/**
 * Configuration: what flags and environment variables mean. Flags win over the environment. Pure; `main.ts`
 * hands in `process.env`, which nothing else reads.
 */

import { homedir, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { RunEvent } from "./actions/event.ts";
import { PATHS_SOURCE } from "./cache/record.ts";
import type { GenerationName } from "./cache/tags.ts";
import { helperEnvironment } from "./child-environment.ts";
import { NixcacheError } from "./errors.ts";
import type { Policy } from "./gc/plan.ts";
import type { KeySource } from "./nar/key-file.ts";
import { formatPublicKey, type PublicKey, parsePublicKey } from "./nar/signing-key.ts";
import type { Environment } from "./nix/location.ts";
import type { CredentialSources } from "./oci/credentials.ts";
import { digestHex, digestOf } from "./oci/digest.ts";
import { CACHE_PACKAGE, isGitHubName } from "./oci/github-name.ts";
import type { GitHubPackage } from "./oci/github-packages.ts";
import {
  type CacheReference,
  formatReference,
  GHCR_HOST,
  gitHubCache,
  isLoopback,
  parseReference,
} from "./oci/reference.ts";
import type { RetryPolicy } from "./oci/retry.ts";
import type { Checkout } from "./system/git.ts";
import { isLogLevel, LOG_LEVELS, type LogLevel } from "./terminal/log.ts";

export type { Environment };

export const DEFAULT_UPSTREAM = "https://cache.nixos.org";
/** https://cache.nixos.org signs with it; Nix trusts it unless it is told otherwise. */
const DEFAULT_UPSTREAM_KEY = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
export const DEFAULT_PORT = 37515;
export const DEFAULT_LISTEN = "127.0.0.1";
export const DEFAULT_INDEX_TTL_S = 300;
export const DEFAULT_GRACE_MS = 30_000;
export const DEFAULT_LOG_LEVEL = "info";
export const DEFAULT_PART_BYTES = 1024 ** 3;
export const DEFAULT_CONNECTIONS = 4;
export const DEFAULT_RETENTION_DAYS = 30;
export const DEFAULT_JOURNAL_BYTES = 20 * 1024 ** 3;
export const DEFAULT_NAR_CACHE_BYTES = 20 * 1024 ** 3;

/** Less than a few packs would keep nothing long enough to be asked for twice. */
const LEAST_NAR_CACHE_BYTES = 16 * 1024 ** 2;

/** Where ghcr.io is administered. */
const DEFAULT_GITHUB_API = "https://api.github.com";

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
 * The cache: `--cache`, NIXCACHE_CACHE, the package of NIXCACHE_REPO, or in GitHub Actions of the repository that runs,
 * at NIXCACHE_REGISTRY or GHCR; and otherwise a layout under the user's data folder.
 */
export function cacheReference(flag: string | undefined, env: Environment): CacheReference {
  const given = flag ?? variable(env, "NIXCACHE_CACHE");
  if (given !== undefined) return parseReference(given);
  const actions = isActions(env) ? variable(env, "GITHUB_REPOSITORY") : undefined;
  const repository = variable(env, "NIXCACHE_REPO") ?? actions;
  if (repository !== undefined) {
    const registry = variable(env, "NIXCACHE_REGISTRY");
    if (isGitHubName(repository)) return gitHubCache(repository, registry);
    return parseReference(registry ? `${registry}/${repository}/${CACHE_PACKAGE}` : repository);
  }
  const data = variable(env, "XDG_DATA_HOME") ?? join(home(env), ".local", "share");
  return { kind: "layout", path: join(data, "nixcache", "cache") };
}

/** The caches that serve answers from, each once, in the order given: `--cache`, else the one that others use. */
export function cacheReferences(flags: readonly string[] | undefined, env: Environment): CacheReference[] {
  const references = flags?.map((flag) => cacheReference(flag, env)) ?? [cacheReference(undefined, env)];
  const byFile = new Map(references.map((reference) => [indexFile(reference, env), reference]));
  return [...byFile.values()];
}

export interface IndexOf {
  /** The index is of this generation alone. */
  readonly generation?: GenerationName | undefined;
  /** It has only what these keys have signed. */
  readonly keys?: readonly PublicKey[] | undefined;
}

/** The folder of local indexes. */
function indexDirectory(env: Environment): string {
  return (
    variable(env, "NIXCACHE_INDEX_DIR") ??
    // systemd gives a list when a unit has several.
    variable(env, "CACHE_DIRECTORY")?.split(":")[0] ??
    join(variable(env, "XDG_CACHE_HOME") ?? join(home(env), ".cache"), "nixcache")
  );
}

/** The secret by which serve knows the URLs that it has given to NARs of upstreams. */
export function narKeyFile(env: Environment): string {
  return join(indexDirectory(env), "upstream-nars.key");
}

/** The file of the local index of one cache: each choice of generations has one of its own. */
export function indexFile(
  reference: CacheReference,
  env: Environment,
  { generation, keys }: IndexOf = {},
): string {
  const only = generation === undefined ? "" : `-${generation}`;
  const texts = keys && [...new Set(keys.map(formatPublicKey))].sort().join(" ");
  const signed = texts === undefined ? "" : `-signed-${digestHex(digestOf(texts)).slice(0, 8)}`;
  return join(indexDirectory(env), `index-${cacheId(reference)}${only}${signed}.sqlite`);
}

/** The folder of the journal of one cache. It holds what is nowhere else, so it is state and not cache. */
export function journalDirectory(reference: CacheReference, env: Environment): string {
  const directory =
    variable(env, "NIXCACHE_JOURNAL_DIR") ??
    variable(env, "STATE_DIRECTORY")?.split(":")[0] ??
    join(variable(env, "XDG_STATE_HOME") ?? join(home(env), ".local", "state"), "nixcache");
  return join(resolve(directory), `journal-${cacheId(reference)}`);
}

/** The folder of what was seen to be built for one cache in one Nix store, until it is published. */
export function queueDirectory(
  reference: CacheReference,
  storeRoot: string | undefined,
  env: Environment,
): string {
  const directory = join(variable(env, "XDG_STATE_HOME") ?? join(home(env), ".local", "state"), "nixcache");
  const store = storeRoot ?? variable(env, "NIX_REMOTE") ?? "";
  return join(resolve(directory), `watch-${cacheId(reference)}-${digestHex(digestOf(store)).slice(0, 8)}`);
}

/** Bytes that uploads take up at most until they are committed. */
export function journalBytes(env: Environment): number {
  const name = "NIXCACHE_JOURNAL_SIZE";
  return byteSize(name, variable(env, name), DEFAULT_JOURNAL_BYTES, 1024 ** 2);
}

/**
 * What writing needs: `--write-token-file`, NIXCACHE_WRITE_TOKEN, NIXCACHE_WRITE_TOKEN_FILE; never an argument, which
 * others can see.
 */
export function writeToken(flag: string | undefined, env: Environment): TokenSource | undefined {
  if (flag !== undefined) return { file: flag, from: "--write-token-file" };
  const text = variable(env, "NIXCACHE_WRITE_TOKEN");
  if (text !== undefined) return { text };
  const file = variable(env, "NIXCACHE_WRITE_TOKEN_FILE");
  return file === undefined ? undefined : { file, from: "NIXCACHE_WRITE_TOKEN_FILE" };
}

export type TokenSource = { readonly file: string; readonly from: string } | { readonly text: string };

function cacheId(reference: CacheReference): string {
  // Two folders called ./cache are two caches.
  const name = reference.kind === "layout" ? resolve(reference.path) : formatReference(reference);
  return digestHex(digestOf(name)).slice(0, 16);
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

/**
 * Keys by which upstreams sign: `--upstream-key` (repeatable), NIXCACHE_UPSTREAM_KEYS (space-separated); and that of
 * cache.nixos.org where it is an upstream. @throws `key`
 */
export function upstreamKeys(
  flags: readonly string[] | undefined,
  upstreams: readonly string[],
  env: Environment,
): PublicKey[] {
  const given = flags ?? env.NIXCACHE_UPSTREAM_KEYS?.split(/\s+/) ?? [];
  const own = upstreams.some(isDefaultUpstream) ? [DEFAULT_UPSTREAM_KEY] : [];
  return [...given, ...own].filter((text) => text !== "").map((text) => parsePublicKey(text, "upstream key"));
}

/** By plain HTTP, with a priority or a slash behind it, it is the same. */
function isDefaultUpstream(url: string): boolean {
  return URL.parse(url)?.host === new URL(DEFAULT_UPSTREAM).host;
}

/**
 * Keys of which one must have signed a generation: `--trusted-public-key` (repeatable), NIXCACHE_TRUSTED_PUBLIC_KEYS
 * (space-separated). @throws `key`
 */
export function trustedPublicKeys(flags: readonly string[] | undefined, env: Environment): PublicKey[] {
  if (flags !== undefined) return flags.map((text) => parsePublicKey(text, "--trusted-public-key"));
  const texts = (env.NIXCACHE_TRUSTED_PUBLIC_KEYS ?? "").split(/\s+/).filter((text) => text !== "");
  return texts.map((text) => parsePublicKey(text, "NIXCACHE_TRUSTED_PUBLIC_KEYS"));
}

/** `--signing-key-file`, NIX_SIGNING_KEY (the key itself), NIXCACHE_SIGNING_KEY_FILE; undefined when none is set. */
export function signingKeySource(flag: string | undefined, env: Environment): KeySource | undefined {
  if (flag !== undefined) return { file: flag };
  const text = variable(env, "NIX_SIGNING_KEY");
  if (text !== undefined) return { text, from: "NIX_SIGNING_KEY" };
  const file = variable(env, "NIXCACHE_SIGNING_KEY_FILE");
  return file === undefined ? undefined : { file };
}

/** Below this Nix evaluates nothing of use. */
const LEAST_EVAL_BYTES = 256 * 1024 ** 2;
const EVAL_BYTES_EACH = 2 * 1024 ** 3;

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

/** Where clients find serve: `--url`, else this machine at `--port` or where the environment has it listen. */
export function clientUrl(
  flags: { url: string | undefined; port: string | undefined },
  env: Environment,
): string {
  const { hostname, port } = listenAddress({ port: flags.port }, env);
  if (flags.url === undefined) {
    // What listens everywhere is on this machine as well.
    const host = hostname === "0.0.0.0" || hostname === "::" ? DEFAULT_LISTEN : hostname;
    return `http://${host.includes(":") ? `[${host}]` : host}:${port}`;
  }
  if (flags.port !== undefined) throw new NixcacheError("usage", "--url and --port exclude each other");
  const isUsable = /^https?:\/\/[^\s#]+$/.test(flags.url) && URL.canParse(flags.url);
  if (isUsable) return flags.url.replace(/\/+$/, "");
  throw new NixcacheError(
    "usage",
    `--url: got ${JSON.stringify(flags.url)}, expected an address such as http://cache.lan:${DEFAULT_PORT}`,
  );
}

/**
 * The file in which Nix looks for a user's own settings, or the machine's.
 * https://nix.dev/manual/nix/latest/command-ref/conf-file
 * @param version of Nix: old ones do not know NIX_CONFIG_HOME
 */
export function nixConfFile(of: "user" | "system", env: Environment, version = ""): string {
  if (of === "system") return join(variable(env, "NIX_CONF_DIR") ?? "/etc/nix", "nix.conf");
  const [first] = variable(env, "NIX_USER_CONF_FILES")?.split(":") ?? [];
  if (first) return first;
  const own = variable(env, "NIX_CONFIG_HOME");
  const [major = 0, minor = 0] = version.split(".").map(Number);
  if (own !== undefined && (major > 2 || minor >= 26)) return join(own, "nix.conf");
  return join(variable(env, "XDG_CONFIG_HOME") ?? join(home(env), ".config"), "nix", "nix.conf");
}

/**
 * Bytes of memory that evaluations may use together: `--eval-memory`, NIXCACHE_EVAL_MEMORY, else three quarters of what
 * there is.
 */
export function evalMemory(flag: string | undefined, available: number, env: Environment): number {
  const given = flag ?? variable(env, "NIXCACHE_EVAL_MEMORY");
  const usual = Math.max(LEAST_EVAL_BYTES, Math.floor(available * 0.75));
  return byteSize("--eval-memory", given, usual, LEAST_EVAL_BYTES);
}

/** Evaluations that are worth beginning at once with so much memory: nixpkgs alone takes some of it in each. */
export function evalProcesses(memory: number, threads: number): number {
  return Math.max(1, Math.min(threads, Math.floor(memory / EVAL_BYTES_EACH)));
}

/** Milliseconds between two refreshes of the index. */
export function indexTtlMs(flag: string | undefined, env: Environment): number {
  const given = flag ?? variable(env, "NIXCACHE_INDEX_TTL");
  return wholeNumber("--index-ttl", given, DEFAULT_INDEX_TTL_S, 1, 86_400) * 1000;
}

/** Milliseconds that transfers may go on for once serve is told to stop: `--grace`, NIXCACHE_GRACE. */
export function graceMs(flag: string | undefined, env: Environment): number {
  return durationMs("--grace", flag ?? variable(env, "NIXCACHE_GRACE"), DEFAULT_GRACE_MS);
}

/** What is logged: `--log-level`, NIXCACHE_LOG_LEVEL. */
export function logLevel(flag: string | undefined, env: Environment): LogLevel {
  const given = flag ?? variable(env, "NIXCACHE_LOG_LEVEL") ?? DEFAULT_LOG_LEVEL;
  if (isLogLevel(given)) return given;
  throw new NixcacheError(
    "usage",
    `--log-level: got ${JSON.stringify(given)}, expected one of ${LOG_LEVELS.join(", ")}`,
  );
}

/** Requests for one NAR at once: `--connections`, NIXCACHE_CONNECTIONS. */
export function connectionCount(flag: string | undefined, env: Environment): number {
  const given = flag ?? variable(env, "NIXCACHE_CONNECTIONS");
  return wholeNumber("--connections", given, DEFAULT_CONNECTIONS, 1, 64);
}

/** The disk cache of NARs: `--nar-cache` and `--nar-cache-size`, NIXCACHE_NAR_CACHE and …_SIZE; off by default. */
export function narCache(
  flags: { directory: string | undefined; size: string | undefined },
  env: Environment,
): { directory: string; limit: number } | undefined {
  const directory = flags.directory ?? variable(env, "NIXCACHE_NAR_CACHE");
  const given = flags.size ?? variable(env, "NIXCACHE_NAR_CACHE_SIZE");
  const limit = byteSize("--nar-cache-size", given, DEFAULT_NAR_CACHE_BYTES, LEAST_NAR_CACHE_BYTES);
  if (directory) return { directory: resolve(directory), limit };
  if (flags.size === undefined) return undefined;
  throw new NixcacheError(
    "usage",
    "--nar-cache-size: got a size, expected --nar-cache with a folder as well",
  );
}

/** The file of those whom TLS trusts; undefined for those that Bun knows. */
export function authoritiesFile(env: Environment): string | undefined {
  return variable(env, "NIX_SSL_CERT_FILE");
}

/** How often and how patiently a command asks a registry: its own policy, changed by NIXCACHE_RETRY_… */
export function retryPolicy(own: RetryPolicy, env: Environment): RetryPolicy {
  const changed: { -readonly [K in keyof RetryPolicy]: RetryPolicy[K] } = { ...own };
  const name = "NIXCACHE_RETRY_ATTEMPTS";
  changed.attempts = wholeNumber(name, variable(env, name), own.attempts, 1, 1000);
  changed.faultAttempts = changed.attempts;
  for (const [field, name] of Object.entries(RETRY_DURATIONS)) {
    const key = field as keyof typeof RETRY_DURATIONS;
    changed[key] = durationMs(name, variable(env, name), own[key]);
  }
  return changed;
}

/** Where credentials for registries may be. GitHub's tokens are for GitHub's registry alone (rule 7). */
export function credentialSources(env: Environment): CredentialSources {
  return {
    helperEnvironment: helperEnvironment(env),
    uid: process.getuid?.(),
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

/** What lives when garbage is collected: the flags of gc, or without any its defaults. */
export function gcPolicy(flags: {
  retentionDays?: string | undefined;
  keepLast?: string | undefined;
  keepBranches?: readonly string[] | undefined;
  dropBranches?: readonly string[] | undefined;
  maxSize?: string | undefined;
}): Policy {
  const days = wholeNumber("--retention-days", flags.retentionDays, DEFAULT_RETENTION_DAYS, 0, 36_500);
  return {
    retentionMs: days * 24 * 3_600_000,
    keepLast: wholeNumber("--keep-last", flags.keepLast, 1, 1, 1_000_000),
    keepBranches: flags.keepBranches ?? [],
    dropBranches: flags.dropBranches ?? [],
    ...(flags.maxSize !== undefined && { maxBytes: byteSize("--max-size", flags.maxSize, 0, 0) }),
  };
}

/**
 * The package behind a cache at GitHub's registry, and the API that deletes in it: `api.github.com` for ghcr.io,
 * GITHUB_API_URL where it is that of the same GitHub. Undefined for other registries: GitHub's token is not theirs,
 * nor is theirs GitHub's (rule 7).
 */
export function gitHubPackage(reference: CacheReference, env: Environment): GitHubPackage | undefined {
  if (reference.kind !== "registry") return undefined;
  const registry = new URL(`${reference.scheme}://${reference.host}`);
  const home = registry.host === GHCR_HOST ? "github.com" : registry.hostname.replace(/^containers\./, "");
  const api = [variable(env, "GITHUB_API_URL"), DEFAULT_GITHUB_API]
    .flatMap((text) => (text !== undefined && URL.canParse(text) ? [new URL(text)] : []))
    .find(({ hostname, protocol }) => {
      const isSafe = protocol === "https:" || (protocol === "http:" && isLoopback(hostname));
      return isSafe && hostname.replace(/^api\./, "") === home;
    });
  const [owner = "", ...name] = reference.repository.split("/");
  return api && name.length > 0 ? { api, owner, name: name.join("/") } : undefined;
}

/** Where GitHub Actions shows what a step has to say, as Markdown: a file to append to. */
export function stepSummaryFile(env: Environment): string | undefined {
  return variable(env, "GITHUB_STEP_SUMMARY");
}

/** Whether this is a step of GitHub Actions. */
export function isActions(env: Environment): boolean {
  return variable(env, "GITHUB_ACTIONS") === "true";
}

/** What set off this run of GitHub Actions; undefined elsewhere. */
export function runEvent(env: Environment): RunEvent | undefined {
  if (!isActions(env)) return undefined;
  return {
    name: variable(env, "GITHUB_EVENT_NAME") ?? "",
    file: variable(env, "GITHUB_EVENT_PATH") ?? "",
    repository: variable(env, "GITHUB_REPOSITORY") ?? "",
    actor: variable(env, "GITHUB_ACTOR") ?? "",
  };
}

/** Where GitHub Actions takes the outputs of a step from: a file to append to. */
export function stepOutputFile(env: Environment): string | undefined {
  return variable(env, "GITHUB_OUTPUT");
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

/** From where bare paths are published, as GitHub Actions tells it. They belong to no branch. */
export function publishOrigin(env: Environment): {
  source: string;
  repository?: string;
  revision?: string;
  run?: string;
} {
  const repository = variable(env, "GITHUB_REPOSITORY");
  if (!isActions(env) || repository === undefined) return { source: PATHS_SOURCE };
  const server = variable(env, "GITHUB_SERVER_URL") ?? "https://github.com";
  const revision = variable(env, "GITHUB_SHA");
  const run = variable(env, "GITHUB_RUN_ID");
  return {
    source: PATHS_SOURCE,
    repository: `${server}/${repository}`,
    ...(revision && { revision }),
    ...(run && { run: `${server}/${repository}/actions/runs/${run}` }),
  };
}

/**
 * From where outputs are published: the repository and branch of the run in GitHub Actions, else of the checkout;
 * without one they count as bare paths. A pull request has a branch of the base repository to itself, `12/merge`:
 * the one that it comes from may have the name of any other.
 */
export function outputsOrigin(
  env: Environment,
  checkout: Checkout | undefined,
): ReturnType<typeof publishOrigin> & { branch?: string } {
  const actions = publishOrigin(env);
  if (actions.repository !== undefined) {
    const ref = variable(env, "GITHUB_REF_NAME");
    const branch = variable(env, "GITHUB_HEAD_REF") ?? ref;
    return { ...actions, source: withBranch(actions.repository, ref), ...(branch && { branch }) };
  }
  if (checkout?.origin === undefined) return actions;
  const { origin, branch, revision } = checkout;
  return {
    source: withBranch(origin, branch),
    repository: origin,
    ...(branch && { branch }),
    ...(revision && { revision }),
  };
}

function withBranch(repository: string, branch: string | undefined): string {
  return branch === undefined ? repository : `${repository}#${branch}`;
}

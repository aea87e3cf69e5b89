/**
 * Where the pieces are wired together: the real clock, the real network, the store that a reference names.
 * Made once by `main.ts` and handed to the command that runs.
 */
import { cpus } from "node:os";
import type { StepLog } from "./actions/step-log.ts";
import { IndexDatabase } from "./cache/database.ts";
import type { GenerationName } from "./cache/tags.ts";
import {
  authoritiesFile,
  credentialSources,
  type Environment,
  gitHubPackage,
  indexFile,
  retryPolicy,
  spoolDirectory,
  upstreamKeys,
} from "./config.ts";
import type { Host } from "./host.ts";
import type { PublicKey } from "./nar/signing-key.ts";
import type { Web } from "./network/egress.ts";
import { DIRECT_WEB } from "./network/web.ts";
import { BlobCache } from "./oci/blob-cache.ts";
import { type Credentials, findCredentials } from "./oci/credentials.ts";
import { gitHubPackages } from "./oci/github-packages.ts";
import { systemNetwork } from "./oci/network.ts";
import { openStore } from "./oci/open.ts";
import type { CacheReference } from "./oci/reference.ts";
import type { RegistryOptions } from "./oci/registry.ts";
import { BRISK, PATIENT, type RetryPolicy } from "./oci/retry.ts";
import { Spool } from "./oci/spool.ts";
import type { Store } from "./oci/store.ts";
import { readBlobRange } from "./protocol/blob-range.ts";
import type { ProtocolContext } from "./protocol/context.ts";
import type { Trust } from "./protocol/signed.ts";
import { MemoryBudget } from "./serve/memory.ts";
import { readAuthorities, trusting } from "./system/certificates.ts";
import { hasProxy, proxyVariable, tellingOfProxies } from "./system/proxy.ts";
import type { StandardInput } from "./system/standard-input.ts";
import { tellingProtocols } from "./system/wrong-protocol.ts";
import type { Log } from "./terminal/log.ts";
import type { Screen } from "./terminal/screen.ts";
import { openUpstream, type Upstream } from "./upstream/client.ts";
import { USER_AGENT } from "./version.ts";

export interface Context {
  readonly env: Environment;
  readonly host: Host;
  readonly log: Log;
  /** Where GitHub Actions reads what we print; undefined elsewhere. */
  readonly step?: StepLog | undefined;
  /** Fires on SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
  /** Whether a person watches standard error. */
  readonly terminal: boolean;
  readonly threads: number;
  /** Standard output, where a person reads it; undefined where a file or another program takes it. */
  readonly screen?: Screen | undefined;
  /** A result, on standard output. */
  print(text: string): void;
  /** A result of many lines; waits while nobody takes them. */
  printAll(lines: Iterable<string>): Promise<void>;
  readStdin(): Promise<string>;
  /** What is on standard input; nothing of it is read. */
  probeStdin(): StandardInput;
  /** The process ends with this code although nothing was thrown. */
  setExitCode(code: number): void;
  /** From now on a first SIGINT or SIGTERM only fires `signal`: the command ends by itself, in its own time. */
  stopsItself(): void;
}

/** Upstreams answer from a CDN: one that takes longer than this to begin holds up every build. */
const UPSTREAM_TIMEOUT_MS = 5_000;

/** A transfer that has begun may pause for longer: some caches compress while they send. */
const UPSTREAM_STALL_MS = 30_000;

/** Requests to the store that one step of the protocol has under way at once. */
const CONCURRENCY = 8;

export const realHost: Host = {
  now: () => Date.now(),
  random: () => Math.random(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const stop = () => {
        clearTimeout(timer);
        reject(signal?.reason);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", stop);
        resolve();
      }, ms);
      signal?.addEventListener("abort", stop, { once: true });
    }),
};

export function threadCount(): number {
  return Math.max(1, cpus().length);
}

/** The network, trusting whom Nix trusts. Its fetch rejects with `filesystem` where it needs a file that cannot be read. */
export function systemWeb(env: Environment): Web {
  const file = authoritiesFile(env);
  let read: string | undefined;
  const authorities = (path: string) => () => {
    read ??= readAuthorities(path);
    return read;
  };
  const isProxied = (url: string) => proxyVariable(url, env, "bun") !== undefined;
  const send = tellingOfProxies(env, DIRECT_WEB.fetch);
  return {
    fetch: tellingProtocols(trusting(file === undefined ? undefined : authorities(file), send)),
    // With a proxy for some hosts, whether a host is one of them goes by its name.
    names: { ...DIRECT_WEB.names, isProxied, mayPin: !hasProxy("http:", env) },
  };
}

/** The cache of a reference with its local index; dispose of it at the end. */
export interface OpenCache extends Disposable {
  readonly protocol: ProtocolContext;
}

/** Where a cache is opened as a source of copies: nobody waits, so it is asked patiently. */
export function openSource(reference: CacheReference, context: Context): Store {
  return openStore(reference, registryOptions(reference, "read", PATIENT, context));
}

/** How to look for credentials for a cache. What is passed over is told once, however often it is looked for. */
export function credentialsFor(
  reference: CacheReference,
  { env, log, signal }: Pick<Context, "env" | "log" | "signal">,
): () => Promise<Credentials | undefined> {
  const told = new Set<string>();
  const warn = (message: string) => {
    if (!told.has(message)) log.warn(message);
    told.add(message);
  };
  return async () => {
    if (reference.kind === "layout") return undefined;
    return findCredentials(reference, { ...credentialSources(env), signal, warn });
  };
}

function registryOptions(
  reference: CacheReference,
  access: "read" | "write",
  policy: RetryPolicy,
  context: Context,
): RegistryOptions {
  const { env, host, signal } = context;
  return {
    credentials: credentialsFor(reference, context),
    policy: retryPolicy(policy, env),
    host,
    signal,
    network: reference.kind === "layout" ? undefined : systemNetwork(host, signal, systemWeb(env)),
    userAgent: USER_AGENT,
    access,
  };
}

export interface OpenCacheOptions {
  /** A cache in front of the store, unless that is a folder of this machine already. */
  readonly before?: { over(store: Store): Partial<Store> } | undefined;
  /** A local index that is open already, and stays so; without it the cache's own is opened. */
  readonly index?: IndexDatabase | undefined;
  /** The local index is for this generation alone. */
  readonly generation?: GenerationName | undefined;
  /** A repository of the same registry, of which blobs may be taken over. */
  readonly mountFrom?: string | undefined;
  /** Keys of whoever reads, and who signs what is written. Default: everything counts, and nobody signs. */
  readonly trust?: (Trust & { readonly given: readonly PublicKey[] }) | undefined;
}

/** @param access `read` is brisk, since a client waits; `write` sits out a registry's rate limits. */
export function openCache(
  reference: CacheReference,
  access: "read" | "write",
  context: Context,
  { before, index, generation, mountFrom, trust }: OpenCacheOptions = {},
): OpenCache {
  const { env, host, signal, log } = context;
  const warned = new Set<string>();
  // Steps are repeated, and what they noticed once they notice again.
  const warn = (message: string) => {
    if (!warned.has(message)) log.warn(message);
    warned.add(message);
  };
  const policy = access === "read" ? BRISK : PATIENT;
  const file = indexFile(reference, env, { generation, keys: trust?.keys });
  const database = index ?? IndexDatabase.open(file, trust?.given);
  const { ignoresRange } = database.view.state();
  const options = registryOptions(reference, access, policy, context);
  const store = openStore(reference, { ...options, mountFrom, ignoresRange });
  const spool = new Spool(spoolDirectory(env));
  return {
    protocol: {
      store: before && reference.kind !== "layout" ? { ...store, ...before.over(store) } : store,
      database,
      spool,
      host,
      signal,
      concurrency: CONCURRENCY,
      trust,
      warn,
      info: (message) => log.info(message),
    },
    [Symbol.dispose]() {
      spool[Symbol.dispose]();
      if (index === undefined) database.close();
    },
  };
}

/** `protocol` for one who deletes: GitHub's registry does that by another API than the others. */
export function deletingAt(
  reference: CacheReference,
  protocol: ProtocolContext,
  context: Context,
): ProtocolContext {
  const { env, host, signal } = context;
  const target = gitHubPackage(reference, env);
  if (target === undefined || reference.kind === "layout") return protocol;
  const packages = gitHubPackages(target, {
    credentials: credentialsFor(reference, context),
    policy: retryPolicy(PATIENT, env),
    network: systemNetwork(host, signal, systemWeb(env)),
    userAgent: USER_AGENT,
  });
  return { ...protocol, store: { ...protocol.store, ...packages } };
}

/** The disk cache of what serve fetches, which it does over several connections. */
export function openNarCache(
  { directory, limit }: { directory: string; limit: number },
  connections: number,
  { host, log }: Context,
): Promise<BlobCache> {
  // Of its own: readers who wait for a download must not take what it needs to go on.
  const memory = new MemoryBudget();
  return BlobCache.open({
    directory,
    limit,
    host,
    warn: (message) => log.warn(message),
    download: (store, digest, size, signal) =>
      readBlobRange(
        store,
        { digest, size },
        { offset: 0, length: size },
        { signal, memory, connections, clock: () => performance.now() },
      ),
  });
}

/** @param keys by which they sign, as given for all of them: `--upstream-key` */
export function openUpstreams(
  urls: readonly string[],
  env: Environment,
  keys?: readonly string[] | undefined,
): Upstream[] {
  if (urls.length === 0) return [];
  const options = {
    web: systemWeb(env),
    timeoutMs: UPSTREAM_TIMEOUT_MS,
    stallMs: UPSTREAM_STALL_MS,
    userAgent: USER_AGENT,
  };
  return urls.map((url) => openUpstream(url, { ...options, keys: upstreamKeys(keys, [url], env) }));
}

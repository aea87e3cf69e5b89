/**
 * Where the pieces are wired together: the real clock, the real network, the store that a reference names.
 * Made once by `main.ts` and handed to the command that runs.
 */
import { cpus } from "node:os";
import { IndexDatabase } from "./cache/database.ts";
import { credentialSources, type Environment, indexFile, retryPolicy, spoolDirectory } from "./config.ts";
import type { Host } from "./host.ts";
import { findCredentials } from "./oci/credentials.ts";
import { openStore } from "./oci/open.ts";
import type { CacheReference } from "./oci/reference.ts";
import { BRISK, PATIENT } from "./oci/retry.ts";
import { Spool } from "./oci/spool.ts";
import type { ProtocolContext } from "./protocol/context.ts";
import type { Log } from "./terminal/log.ts";
import { type Fetch, openUpstream, type Upstream } from "./upstream/client.ts";
import { USER_AGENT } from "./version.ts";

export interface Context {
  readonly env: Environment;
  readonly host: Host;
  readonly log: Log;
  /** Fires on SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
  /** Whether a person watches standard error. */
  readonly terminal: boolean;
  /** Whether standard input is something to read rather than a keyboard. */
  readonly stdinIsPiped: boolean;
  readonly threads: number;
  /** A result, on standard output. */
  print(text: string): void;
  readStdin(): Promise<string>;
  /** The process ends with this code although nothing was thrown. */
  setExitCode(code: number): void;
}

/** Upstreams answer from a CDN: one that takes longer than this to begin holds up every build. */
const UPSTREAM_TIMEOUT_MS = 5_000;

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

/** The cache of a reference with its local index; dispose of it at the end. */
export interface OpenCache extends Disposable {
  readonly protocol: ProtocolContext;
}

/** @param access `read` is brisk, since a client waits; `write` sits out a registry's rate limits. */
export function openCache(reference: CacheReference, access: "read" | "write", context: Context): OpenCache {
  const { env, host, signal, log } = context;
  const warned = new Set<string>();
  // Steps are repeated, and what they noticed once they notice again.
  const warn = (message: string) => {
    if (!warned.has(message)) log.warn(message);
    warned.add(message);
  };
  const store = openStore(reference, {
    credentials: async () => {
      if (reference.kind === "layout") return undefined;
      const sources = { ...credentialSources(env), warn: (message: string) => log.warn(message) };
      return findCredentials(reference.host, sources, reference.repository);
    },
    policy: retryPolicy(access === "read" ? BRISK : PATIENT, env),
    host,
    signal,
    userAgent: USER_AGENT,
    access,
  });
  const database = IndexDatabase.open(indexFile(reference, env));
  const spool = new Spool(spoolDirectory(env));
  return {
    protocol: {
      store,
      database,
      spool,
      host,
      signal,
      concurrency: CONCURRENCY,
      warn,
    },
    [Symbol.dispose]() {
      spool[Symbol.dispose]();
      database.close();
    },
  };
}

export function openUpstreams(urls: readonly string[]): Upstream[] {
  const options = { fetch: fetch as Fetch, timeoutMs: UPSTREAM_TIMEOUT_MS, userAgent: USER_AGENT };
  return urls.map((url) => openUpstream(url, options));
}

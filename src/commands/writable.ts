/** `serve --writable`: what it needs, wired together. */

import { readFileSync } from "node:fs";
import {
  DEFAULT_PART_BYTES,
  type Environment,
  journalBytes,
  journalDirectory,
  publishOrigin,
  writeToken,
} from "../config.ts";
import { type Context, openCache } from "../context.ts";
import { messageOf, NixcacheError } from "../errors.ts";
import { formatPublicKey, type PublicKey, publicKeyOf, type SecretKey } from "../nar/signing-key.ts";
import type { CacheReference } from "../oci/reference.ts";
import { Committer } from "../receive/committer.ts";
import { elsewhereIn } from "../receive/elsewhere.ts";
import { Journal } from "../receive/journal.ts";
import { createReceiver } from "../receive/receiver.ts";
import type { ServedCache } from "../serve/cache.ts";
import { type Guard, isLoopback } from "../serve/guard.ts";
import type { Upstreams } from "../serve/upstreams.ts";
import type { Writer, WriterStatus } from "../serve/writer.ts";
import { TOOL } from "../version.ts";
import type { Arguments } from "./command.ts";
import { signingKey, type Trusted } from "./trust.ts";
import { requireWrite } from "./write-access.ts";

export const WRITABLE_ARGS = {
  writable: {
    type: "boolean",
    description: "Accept uploads (nix copy --to) and commit them to the first cache",
  },
  "signing-key-file": { type: "string", valueHint: "FILE", description: "Sign uploads with this secret key" },
  "write-token-file": {
    type: "string",
    valueHint: "FILE",
    description:
      "Accept uploads only with the token in this file; needed unless only this machine can connect",
  },
} as const;

export interface WritableOptions {
  /** What is written to is the first. */
  readonly references: readonly CacheReference[];
  /** Those of the references, in their order. */
  readonly caches: readonly ServedCache[];
  readonly upstreams: Upstreams;
  /** By which all of them sign; empty where those of one are not known. */
  readonly upstreamKeys: readonly PublicKey[];
  readonly guard: Guard;
  readonly hostname: string;
  /** Its signer signs what is uploaded. */
  readonly trust: Trusted;
}

export interface OpenWriter extends AsyncDisposable {
  readonly writer: Writer;
  /** Rejects when the cache cannot be written to. */
  readonly allowed: Promise<void>;
  /** The fields of `/_status`. */
  status(): WriterStatus;
  /**
   * Commits what there is; call it once no more uploads come. What cannot be committed by the time that `signal`
   * fires stays in the journal.
   */
  close(signal: AbortSignal): Promise<void>;
}

/** The key that uploads are signed with; undefined where none is set, or nothing is written. @throws `key` */
export function uploadKey(given: Arguments, context: Pick<Context, "env" | "log">): SecretKey | undefined {
  return given.flag("writable") ? signingKey(given, context) : undefined;
}

/** Undefined without `--writable`. */
export function openWriter(
  given: Arguments,
  { references, caches, upstreams, upstreamKeys, guard, hostname, trust }: WritableOptions,
  context: Context,
): OpenWriter | undefined {
  const [reference] = references;
  const [first] = caches;
  if (!given.flag("writable")) {
    for (const flag of ["write-token-file", "signing-key-file"] as const) {
      if (given.text(flag) !== undefined)
        throw new NixcacheError("usage", `--${flag}: got a file, expected --writable as well`);
    }
    return undefined;
  }
  if (reference === undefined || first === undefined) return undefined;
  const { env, host, log } = context;
  const key = trust.signer;
  const token = readToken(given.text("write-token-file"), env);
  const [alias] = given.texts("allow-host") ?? [];
  const others = isLoopback(hostname) ? alias && `--allow-host ${alias}` : hostname;
  if (token === undefined && others !== undefined) {
    throw new NixcacheError(
      "usage",
      `--writable: got no token, expected one since others can reach ${others}`,
      {
        hint: "Put a token into NIXCACHE_WRITE_TOKEN or --write-token-file, or listen on 127.0.0.1.",
      },
    );
  }
  const journal = Journal.open(journalDirectory(reference, env), first.store, host.now);
  // What has been accepted is committed after the signal to stop, too.
  const stop = new AbortController();
  const cache = openCache(
    reference,
    "write",
    { ...context, signal: stop.signal },
    { index: first.index, trust },
  );
  const elsewhere = elsewhereIn(caches.slice(1), upstreams, upstreamKeys, stop.signal);
  const { repository, revision, run } = publishOrigin(env);
  const committer = new Committer({
    ...cache.protocol,
    journal,
    elsewhere,
    partBytes: DEFAULT_PART_BYTES,
    origin: {
      tool: TOOL,
      source: "paths",
      keys: key ? [formatPublicKey(publicKeyOf(key))] : [],
      ...(repository && { repository }),
      ...(revision && { revision }),
      ...(run && { run }),
    },
    log,
  });
  const running = committer.run();
  // Nothing is waited for once the server has been stopped.
  const allowed = requireWrite(reference, context);
  allowed.catch(() => {});
  running.catch((error) => log.error(`uploads are not committed any more: ${messageOf(error)}`));
  return {
    writer: createReceiver({
      journal,
      index: () => cache.protocol.database.view,
      isLoaded: () => first.isLoaded(),
      elsewhere,
      committer,
      key,
      host,
      onError: (message) => log.warn(message),
      guard,
      token,
      journalBytes: journalBytes(env),
    }),
    allowed,
    status() {
      const { lastCommit, lastError } = committer.status();
      const { paths, bytes } = journal.totals();
      return {
        pending_paths: paths,
        pending_bytes: bytes,
        last_commit: lastCommit === undefined ? null : new Date(lastCommit).toISOString(),
        last_error: lastError ?? null,
      };
    },
    async close(signal) {
      const giveUp = () => stop.abort(signal.reason);
      signal.addEventListener("abort", giveUp, { once: true });
      if (signal.aborted) giveUp();
      committer.close();
      await running.catch(() => {});
      const { paths } = journal.totals();
      if (paths > 0)
        log.warn(`${paths} uploaded paths stay in the journal, for the next serve --writable to commit`);
    },
    async [Symbol.asyncDispose]() {
      stop.abort(new NixcacheError("interrupted", "stopped"));
      await running.catch(() => {});
      cache[Symbol.dispose]();
      journal[Symbol.dispose]();
    },
  };
}

function readTokenFile({ file, from }: { readonly file: string; readonly from: string }): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    throw new NixcacheError("usage", `${from}: cannot read ${file}: ${messageOf(cause)}`, { cause });
  }
}

/** @throws `usage`, never with what was given. */
function readToken(flag: string | undefined, env: Environment): string | undefined {
  const source = writeToken(flag, env);
  if (source === undefined) return undefined;
  const token = ("file" in source ? readTokenFile(source) : source.text).trim();
  if (/^[\x21-\x7e]{8,}$/.test(token)) return token;
  throw new NixcacheError(
    "usage",
    "the token for writing: expected 8 or more characters, no blanks among them",
    {
      hint: "Make one with: head -c 24 /dev/urandom | base64",
    },
  );
}

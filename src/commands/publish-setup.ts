/** What every kind of publish needs, out of flags and environment. */
import {
  byteSize,
  cacheReference,
  DEFAULT_PART_BYTES,
  upstreamKeys,
  upstreamUrls,
  wholeNumber,
} from "../config.ts";
import { type Context, openCache, openUpstreams } from "../context.ts";
import { NixcacheError } from "../errors.ts";
import { dumpNar } from "../nar/dump.ts";
import type { SecretKey } from "../nar/signing-key.ts";
import { STORE_DIR } from "../nar/store-path.ts";
import { runCommand } from "../nix/command.ts";
import { type NixStore, openNixStore } from "../nix/store.ts";
import { configuredStore } from "../nix/store-setting.ts";
import type { CacheReference } from "../oci/reference.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { Compressor } from "../publish/nar-file.ts";
import type { PublishContext } from "../publish/publish.ts";
import { type ProgressLine, plainProgress, terminalProgress } from "../terminal/progress.ts";
import { DEFAULT_COMPRESSION_LEVEL } from "../zstd.ts";
import { type Arguments, cacheArgs } from "./command.ts";
import { readTrust, requireSigner, SIGN_ARGS, signingKey, TRUST_ARGS, type Trusted } from "./trust.ts";
import { expectsReadOnly, READ_ONLY_ARGS, readOnlyReason } from "./write-access.ts";

/** Smaller parts would only multiply requests; a NAR may have some 32,000. */
const MIN_PART_BYTES = 4 * 1024 * 1024;

/** Packs and large NARs in the making at once: enough to compress on two cores while two uploads wait. */
const UNITS_AT_ONCE = 4;

export const SETUP_ARGS = {
  ...cacheArgs("Leave out what this cache has"),
  "upstream-key": {
    type: "string",
    valueHint: "KEY…",
    description: "Leave out what this public key has signed, without asking (that of cache.nixos.org)",
  },
  ...SIGN_ARGS,
  ...TRUST_ARGS,
  "replace-signed": {
    type: "boolean",
    description: "Publish builds that differ from a signed one in the cache, in its place",
  },
  "compression-level": { type: "string", valueHint: "N", description: "zstd level, 1 to 19 (3)" },
  "part-size": {
    type: "string",
    valueHint: "SIZE",
    description: "Compressed size at which a NAR is split (1G)",
  },
  store: {
    type: "string",
    valueHint: "ROOT",
    description: "Publish from this store (the one that Nix uses)",
  },
  ...READ_ONLY_ARGS,
  "dry-run": { type: "boolean", description: "Build, say what would be uploaded, and upload nothing" },
} as const;

export interface PublishSetup {
  readonly reference: CacheReference;
  readonly key: SecretKey | undefined;
  /** Whose generations count, that key's among them. */
  readonly trust: Trusted;
  /** zstd level. */
  readonly level: number;
  readonly store: NixStore;
  readonly storeRoot: string | undefined;
  readonly dryRun: boolean;
  /** Whether it would be no failure if the cache could not be written to. */
  readonly mayBeReadOnly: boolean;
  /**
   * Asks whether the cache can be written to, which a dry run does not.
   * @returns why it cannot, where that is no failure; undefined where it can
   * @throws why it cannot, where that is one
   */
  askRights(): Promise<string | undefined>;
  readonly progress: ProgressLine;
  /** What publishing into an opened cache needs. */
  publish(protocol: ProtocolContext): PublishContext;
}

/** @throws `usage`, `key`, `reference`, `nix-store` */
export async function readSetup(given: Arguments, context: Context): Promise<PublishSetup> {
  const { env, log } = context;
  const { now } = context.host;
  const key = signingKey(given, context);
  const trust = readTrust(given, context, key);
  requireSigner(trust, "publish");
  const replaceSigned = given.flag("replace-signed");
  if (replaceSigned && key === undefined) {
    throw new NixcacheError("usage", "--replace-signed: got no signing key, expected one", {
      hint: "A signed build is shown before one that is not: sign with --signing-key-file or NIX_SIGNING_KEY.",
    });
  }
  const level = wholeNumber(
    "--compression-level",
    given.text("compression-level"),
    DEFAULT_COMPRESSION_LEVEL,
    1,
    19,
  );
  const partBytes = byteSize("--part-size", given.text("part-size"), DEFAULT_PART_BYTES, MIN_PART_BYTES);
  const urls = upstreamUrls(given.texts("upstream"), env);
  const upstreams = openUpstreams(urls, env, given.texts("upstream-key"));
  const trusted = upstreamKeys(given.texts("upstream-key"), urls, env);
  const reference = cacheReference(given.text("cache"), env);
  const storeRoot = given.text("store") ?? (await configuredStore(runCommand, env, context.signal));
  const store = openNixStore({ storeRoot, env });
  if (store.storeDir !== STORE_DIR) {
    throw new NixcacheError("nix-store", `the store is ${store.storeDir}, expected ${STORE_DIR}`, {
      hint: "Clients can only substitute paths below /nix/store.",
    });
  }
  const dryRun = given.flag("dry-run");
  // Whoever names the keys says that nobody else counts.
  const openEverything =
    trust.keys?.length === 1
      ? () => openCache(reference, "write", context, { trust: { ...trust, keys: undefined } })
      : undefined;
  const progress = context.terminal
    ? terminalProgress(process.stderr, now)
    : plainProgress((line) => log.info(line), now);
  return {
    ...{ reference, key, level, store, storeRoot, progress, dryRun },
    mayBeReadOnly: expectsReadOnly(given, context),
    async askRights() {
      return dryRun ? undefined : await readOnlyReason(given, reference, context);
    },
    trust,
    publish: (protocol) => ({
      ...protocol,
      warn: (message) => {
        progress.pause();
        protocol.warn(message);
      },
      info: (message) => {
        progress.pause();
        protocol.info?.(message);
      },
      openEverything,
      upstreams,
      upstreamKeys: trusted,
      key,
      replaceSigned,
      partBytes,
      unitsAtOnce: UNITS_AT_ONCE,
      compressor: new Compressor(level, context.threads),
      dump: (info, visitor) => dumpNar(store.realPath(info.path), { visitor }),
      buildLog: (derivation) => store.buildLog(derivation),
      progress,
    }),
  };
}

/** The Nix system that this process runs on, such as `x86_64-linux`. */
export function nixSystem(): string {
  const cpu = { x64: "x86_64", arm64: "aarch64" }[process.arch as string] ?? process.arch;
  return `${cpu}-${process.platform}`;
}

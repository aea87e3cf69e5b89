import { mapConcurrently } from "../concurrency.ts";
import {
  byteSize,
  cacheReference,
  DEFAULT_PART_BYTES,
  publishOrigin,
  signingKeySource,
  upstreamUrls,
  wholeNumber,
} from "../config.ts";
import { type Context, openCache, openUpstreams } from "../context.ts";
import { EXIT_CODES, NixcacheError } from "../errors.ts";
import { dumpNar } from "../nar/dump.ts";
import { readSigningKey } from "../nar/key-file.ts";
import { STORE_DIR } from "../nar/store-path.ts";
import { openNixStore } from "../nix/store.ts";
import { Compressor } from "../publish/nar-file.ts";
import { type PublishResult, publish as publishClosure } from "../publish/publish.ts";
import { rootsOf } from "../publish/roots.ts";
import { formatBytes, formatCount, formatDuration } from "../terminal/format.ts";
import { plainProgress, terminalProgress } from "../terminal/progress.ts";
import { TOOL } from "../version.ts";
import { DEFAULT_COMPRESSION_LEVEL } from "../zstd.ts";
import { cacheArgs, command, usageError } from "./command.ts";

/** Smaller parts would only multiply requests; a NAR may have some 32,000. */
const MIN_PART_BYTES = 4 * 1024 * 1024;

/** Without Nix's database each name is a process of nix-store. */
const RESOLVE_AT_ONCE = 8;

/** Packs and large NARs in the making at once: enough to compress on two cores while two uploads wait. */
const UNITS_AT_ONCE = 4;

export const publish = command(
  { name: "publish", description: "Put store paths and their closures into a cache" },
  {
    "path…": {
      type: "positional",
      required: false,
      description:
        "Store paths, or links to them such as ./result; read from standard input when none is given",
    },
    ...cacheArgs("Leave out what this cache has"),
    "signing-key-file": { type: "string", valueHint: "FILE", description: "Sign with this secret key" },
    "compression-level": { type: "string", valueHint: "N", description: "zstd level, 1 to 19 (3)" },
    "part-size": {
      type: "string",
      valueHint: "SIZE",
      description: "Compressed size at which a NAR is split (1G)",
    },
    store: { type: "string", valueHint: "ROOT", description: "Root of a chroot store to publish from" },
    "dry-run": { type: "boolean", description: "Say what would be uploaded and change nothing" },
    json: { type: "boolean", description: "Print a summary as JSON" },
  },
  async (given, context) => {
    const started = context.host.now();
    const { env } = context;
    const keySource = signingKeySource(given.text("signing-key-file"), env);
    const key = keySource && readSigningKey(keySource);
    const level = wholeNumber(
      "--compression-level",
      given.text("compression-level"),
      DEFAULT_COMPRESSION_LEVEL,
      1,
      19,
    );
    const partBytes = byteSize("--part-size", given.text("part-size"), DEFAULT_PART_BYTES, MIN_PART_BYTES);
    const upstreams = openUpstreams(upstreamUrls(given.texts("upstream"), env));
    const reference = cacheReference(given.text("cache"), env);

    const store = openNixStore({ storeRoot: given.text("store"), env });
    if (store.storeDir !== STORE_DIR) {
      throw new NixcacheError("nix-store", `the store is ${store.storeDir}, expected ${STORE_DIR}`, {
        hint: "Clients can only substitute paths below /nix/store.",
      });
    }
    const names = await givenPaths(given.positionals, context);
    const paths = await mapConcurrently(names, RESOLVE_AT_ONCE, (name) => store.resolve(name));
    const closure = await store.closure(paths);

    using cache = openCache(reference, "write", context);
    const { now } = context.host;
    const progress = context.terminal
      ? terminalProgress(process.stderr, now)
      : plainProgress((line) => context.log.info(line), now);
    let result: PublishResult;
    try {
      result = await publishClosure(
        closure,
        {
          tool: TOOL,
          ...publishOrigin(env),
          system: nixSystem(),
          roots: rootsOf(paths),
        },
        {
          ...cache.protocol,
          warn: (message) => {
            progress.pause();
            cache.protocol.warn(message);
          },
          upstreams,
          key,
          partBytes,
          unitsAtOnce: UNITS_AT_ONCE,
          compressor: new Compressor(level, context.threads),
          dump: (info) => dumpNar(store.realPath(info.path)),
          progress,
        },
        { dryRun: given.flag("dry-run") },
      );
    } finally {
      progress.done();
    }
    const cacheName = cache.protocol.store.name;
    const elapsedMs = context.host.now() - started;
    if (given.flag("json")) {
      context.print(
        JSON.stringify({ cache: cacheName, dryRun: given.flag("dry-run"), ...result, elapsedMs }),
      );
    }
    report(
      result,
      { cacheName, elapsedMs, dryRun: given.flag("dry-run"), signed: key !== undefined },
      context,
    );
  },
);

function report(
  result: PublishResult,
  run: { cacheName: string; elapsedMs: number; dryRun: boolean; signed: boolean },
  { log, setExitCode }: Context,
): void {
  const { paths, bytes, leftOut } = result;
  for (const { path, reason } of leftOut) log.error(`left out ${path}: ${reason}`);
  const others = [
    paths.restated > 0 ? `${paths.restated} in the cache already` : "",
    paths.upstream > 0 ? `${paths.upstream} upstream` : "",
  ].filter(Boolean);
  const rest = others.length > 0 ? ` (${others.join(", ")})` : "";
  if (run.dryRun) {
    log.info(
      `would upload ${formatCount(paths.uploaded, "path")}, ${formatBytes(bytes.nar)} of NARs, to ${run.cacheName}${rest}`,
    );
  } else if (paths.uploaded === 0 && leftOut.length > 0) {
    log.info(`nothing was uploaded to ${run.cacheName}${rest}, ${formatDuration(run.elapsedMs)}`);
  } else if (paths.uploaded === 0 && result.generation !== null) {
    log.success(`recorded in ${run.cacheName}, nothing to upload${rest}, ${formatDuration(run.elapsedMs)}`);
  } else if (paths.uploaded === 0) {
    log.success(`nothing to upload to ${run.cacheName}${rest}, ${formatDuration(run.elapsedMs)}`);
  } else {
    const amount = `${formatBytes(bytes.nar)} of NARs, ${formatBytes(bytes.sent)} sent`;
    log.success(
      `published ${formatCount(paths.uploaded, "path")} to ${run.cacheName}${rest}: ${amount}, ${formatDuration(run.elapsedMs)}`,
    );
  }
  if (!run.signed && !run.dryRun && paths.uploaded > 0) {
    log.info(
      "not signed: clients refuse these paths unless they trust another key on them (see nixcache keygen)",
    );
  }
  if (leftOut.length > 0) {
    log.error(
      `${formatCount(leftOut.length, "path")} could not be published; mend the cause and publish again`,
    );
    setExitCode(EXIT_CODES.incomplete);
  }
}

async function givenPaths(positionals: readonly string[], context: Context): Promise<string[]> {
  const paths =
    positionals.length === 0 && context.stdinIsPiped
      ? (await context.readStdin()).split("\n").map((line) => line.trim())
      : [...positionals];
  const named = paths.filter((path) => path !== "");
  if (named.length > 0) return named;
  throw usageError("publish needs at least one PATH, as an argument or on standard input");
}

/** The Nix system that this process runs on, such as `x86_64-linux`. */
function nixSystem(): string {
  const cpu = { x64: "x86_64", arm64: "aarch64" }[process.arch as string] ?? process.arch;
  return `${cpu}-${process.platform}`;
}

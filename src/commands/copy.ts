import { cacheReference, indexFile } from "../config.ts";
import { openCache, openSource } from "../context.ts";
import { copyCache } from "../copy/copy.ts";
import { EXIT_CODES } from "../errors.ts";
import { type CacheReference, formatReference } from "../oci/reference.ts";
import { copyLines, copySummary, plainCopyLine, terminalCopyLine } from "../terminal/copy-report.ts";
import { formatCount } from "../terminal/format.ts";
import { resultJson } from "../terminal/result-json.ts";
import { command, usageError } from "./command.ts";
import { readTrust, TRUST_ARGS } from "./trust.ts";

export const copy = command(
  { name: "copy", description: "Copy a cache into another one: what lives there and is missing here" },
  {
    from: {
      type: "positional",
      required: false,
      valueHint: "REF",

      description: "The cache to read: HOST/NAME, OWNER/REPO, or a folder",
    },
    to: { type: "positional", required: false, valueHint: "REF", description: "The cache to write" },
    generation: {
      type: "string",
      valueHint: "NAME…",
      description: "Only this generation, as `nixcache publish --json` names it",
    },
    ...TRUST_ARGS,
    json: { type: "boolean", description: "Print what was copied as JSON" },
  },
  async (given, context) => {
    const { env, log, host, terminal } = context;
    const [fromText, toText] = given.positionals;
    if (fromText === undefined || toText === undefined)
      throw usageError("copy takes two caches: FROM and TO");
    const [from, to] = [cacheReference(fromText, env), cacheReference(toText, env)];
    if (indexFile(from, env) === indexFile(to, env)) throw usageError("copy needs two different caches");
    const started = host.now();
    const progress = terminal
      ? terminalCopyLine(process.stderr, host.now)
      : plainCopyLine((line) => log.info(line), host.now);
    const source = openSource(from, context);
    const trust = readTrust(given, context);
    using cache = openCache(to, "write", context, { mountFrom: mountable(from, to), trust });
    const warn = (message: string) => {
      progress.pause();
      cache.protocol.warn(message);
    };
    const report = await copyCache(
      { ...cache.protocol, warn, source, progress },
      given.texts("generation"),
    ).finally(() => progress.done());
    const elapsedMs = host.now() - started;
    const name = cache.protocol.store.name;
    if (given.flag("json")) context.print(resultJson({ from: source.name, to: name, ...report, elapsedMs }));
    for (const line of copyLines(report)) log.info(line);
    for (const { generation, reason } of report.damaged) log.error(`left out ${generation}: ${reason}`);
    log.success(copySummary(report, name, elapsedMs));
    if (report.damaged.length === 0) return;
    log.error(
      `${formatCount(report.damaged.length, "generation")} of ${formatReference(from)} could not be copied`,
    );
    context.setExitCode(EXIT_CODES.incomplete);
  },
);

/** The repository that the other one may take blobs over from: one of the same registry. */
function mountable(from: CacheReference, to: CacheReference): string | undefined {
  if (from.kind !== "registry" || to.kind !== "registry") return undefined;
  return from.host === to.host && from.scheme === to.scheme ? from.repository : undefined;
}

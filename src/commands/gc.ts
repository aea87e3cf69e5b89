import { appendSummary } from "../actions/step-files.ts";
import {
  cacheReference,
  DEFAULT_RETENTION_DAYS,
  gcPolicy,
  stepSummaryFile,
  upstreamUrls,
} from "../config.ts";
import { deletingAt, openCache, openUpstreams } from "../context.ts";
import { collectGarbage } from "../gc/gc.ts";
import { adoptionLine } from "../terminal/adoption.ts";
import { formatCount } from "../terminal/format.ts";
import {
  currentLines,
  decisionLines,
  excessLine,
  freedLines,
  gcSummary,
  refusalLines,
  sizeLine,
} from "../terminal/gc-report.ts";
import { resultJson } from "../terminal/result-json.ts";
import { cacheArgs, command } from "./command.ts";
import { CURRENT_ARGS, readCurrent } from "./gc-current.ts";
import { readTrust, requireSigner, SIGN_ARGS, signingKey, TRUST_ARGS } from "./trust.ts";
import { requireWrite } from "./write-access.ts";

export const gc = command(
  { name: "gc", description: "End what nobody needs any more, and free it at the registry" },
  {
    cache: cacheArgs("").cache,
    ...SIGN_ARGS,
    ...TRUST_ARGS,
    "retention-days": {
      type: "string",
      valueHint: "N",
      description: `Keep everything younger than this (${DEFAULT_RETENTION_DAYS})`,
    },
    "keep-last": {
      type: "string",
      valueHint: "N",
      description: "Keep this many of each source, system and set of outputs, however old (1)",
    },
    "keep-branch": {
      type: "string",
      valueHint: "PATTERN…",
      description: "Keep the newest of these branches alone; of others only what is young",
    },
    "drop-branch": {
      type: "string",
      valueHint: "PATTERN…",
      description: "End everything of these branches that is a day old",
    },
    "max-size": {
      type: "string",
      valueHint: "SIZE",
      description: "End the oldest until the rest has at most this size",
    },
    ...CURRENT_ARGS,
    "dry-run": { type: "boolean", description: "Say what would end, and change nothing" },
    json: { type: "boolean", description: "Print the report as JSON" },
  },
  async (given, context) => {
    const { env, log } = context;
    const dryRun = given.flag("dry-run");
    const policy = gcPolicy({
      retentionDays: given.text("retention-days"),
      keepLast: given.text("keep-last"),
      keepBranches: given.texts("keep-branch"),
      dropBranches: given.texts("drop-branch"),
      maxSize: given.text("max-size"),
    });
    const reference = cacheReference(given.text("cache"), env);
    if (!dryRun) await requireWrite(reference, context);
    const current = await readCurrent(given, context);
    const trust = readTrust(given, context, signingKey(given, context));
    if (current !== undefined) requireSigner(trust, "gc of current outputs");
    using cache = openCache(reference, dryRun ? "read" : "write", context, { trust });
    const report = await collectGarbage(deletingAt(reference, cache.protocol, context), policy, {
      dryRun,
      upstreams: openUpstreams(upstreamUrls(undefined, env), env),
      current,
    });
    const { name } = cache.protocol.store;
    if (report.adopted) log.success(adoptionLine(report.adopted, name));
    const { view } = cache.protocol.database;
    if (dryRun && view.v1Layer()) log.info(`would first adopt the cache of nixcache-oci that is in ${name}`);

    const summary = stepSummaryFile(env);
    const unwritten = summary && appendSummary(summary, gcSummary(report, name, dryRun));
    if (unwritten) log.warn(unwritten);
    if (given.flag("json")) {
      const decisions = report.decisions.map(
        ({ record: { source, system, branch, roots }, ...decision }) => ({
          ...decision,
          source,
          system,
          branch,
          outputs: Object.keys(roots),
        }),
      );
      context.print(resultJson({ cache: name, dryRun, ...report, decisions }));
    }
    const told = [...currentLines(report, dryRun), ...decisionLines(report, dryRun), ...freedLines(report)];
    for (const line of told) log.info(line);
    for (const line of [...refusalLines(report), excessLine(report) ?? []].flat()) log.warn(line);
    const ended = report.decisions.filter(({ ends }) => ends).length;
    log.success(
      `${name}: ${dryRun ? "would end" : "ended"} ${formatCount(ended, "generation")} of ${report.decisions.length}; ${sizeLine(report)}`,
    );
  },
);

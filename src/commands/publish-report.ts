/** Says what a publish has done: on the terminal, as JSON, and to GitHub Actions; and the exit status. */
import { randomUUID } from "node:crypto";
import { appendOutputs, appendSummary, formatOutputs } from "../actions/step-files.ts";
import { countStatuses, type OutputRow, type OutputStatus, renderText } from "../build/report.ts";
import { stepOutputFile, stepSummaryFile } from "../config.ts";
import type { Context } from "../context.ts";
import { EXIT_CODES } from "../errors.ts";
import { formatPublicKey, publicKeyOf, type SecretKey } from "../nar/signing-key.ts";
import type { PublishResult } from "../publish/publish.ts";
import { adoptionLine } from "../terminal/adoption.ts";
import { formatBytes, formatCount, formatDuration } from "../terminal/format.ts";
import { publishSummary } from "../terminal/publish-summary.ts";
import { resultJson } from "../terminal/result-json.ts";
import type { Holdings } from "./publish-paths.ts";

export interface Published {
  /** Undefined when there is nothing to tell of: a command failed, and so did publishing what it had built. */
  readonly result: PublishResult | undefined;
  readonly holdings: Holdings;
  /** Of the outputs that were to be built. */
  readonly rows?: readonly OutputRow[];
  readonly buildMs?: number;
  /** Whether attributes that cannot be evaluated are failures. */
  readonly strict?: boolean;
  /** Of the command that was watched. */
  readonly exitCode?: number;
}

interface Run {
  readonly key: SecretKey | undefined;
  readonly dryRun: boolean;
  readonly json: boolean;
  readonly elapsedMs: number;
}

const UNSIGNED =
  "not signed: clients refuse these paths unless they trust another key on them. Make a key with `nixcache keygen`, set it as NIX_SIGNING_KEY, and let clients trust its public key";

const REMEMBERED =
  "a Nix that was refused them before remembers that for up to 30 days, unless it is run once with `--option narinfo-cache-positive-ttl 0`";

export function tell(published: Published, run: Run, context: Context): void {
  const { result, holdings, rows = [], buildMs, exitCode } = published;
  const { step, log, env, setExitCode } = context;
  const failed = failuresOf(rows, published.strict === true);
  if (result) {
    const { key, dryRun, elapsedMs } = run;
    if (run.json) {
      const outputs = published.rows && { outputs: rows, buildMs };
      context.print(resultJson({ cache: holdings.cacheName, dryRun, ...result, ...outputs, elapsedMs }));
    }
    if (result.adopted) log.success(adoptionLine(result.adopted, holdings.cacheName));
    if (rows.length > 0) log.info(`outputs: ${countStatuses(rows)}\n${renderText(rows)}`);
    reportResult(result, holdings.cacheName, run, context);
    const publicKey = key && formatPublicKey(publicKeyOf(key));
    const summary = step && stepSummaryFile(env);
    if (summary !== undefined) {
      const uploadMs = elapsedMs - (buildMs ?? 0);
      const facts = { result, holdings, rows: published.rows, buildMs, uploadMs, dryRun, publicKey };
      const failure = appendSummary(summary, publishSummary(facts));
      if (failure !== undefined) log.warn(failure);
    }
    const outputFile = step && stepOutputFile(env);
    if (outputFile !== undefined) {
      const outputs = {
        generation: result.generation ?? "",
        uploaded: String(dryRun ? 0 : result.paths.uploaded),
        "public-key": publicKey ?? "",
        failed: String(failed.length),
      };
      appendOutputs(outputFile, formatOutputs(outputs, `end-${randomUUID()}`));
    }
    if (result.leftOut.length > 0) setExitCode(EXIT_CODES.incomplete);
  }
  if (failed.length > 0) {
    for (const row of failed) step?.annotate("error", `${row.status}: ${row.reason ?? ""}`, row.attribute);
    const others = run.dryRun ? "" : ", what could be built is published";
    log.error(`${formatCount(failed.length, "output")} of ${rows.length} failed${others}`);
    if (!result?.leftOut.length) setExitCode(EXIT_CODES.build);
  }
  if (exitCode) setExitCode(exitCode);
}

const FAILED: ReadonlySet<OutputStatus> = new Set(["failed", "missing", "blocked", "stopped"]);

/** Where nothing at all can be evaluated there is nothing that could be published instead. */
function failuresOf(rows: readonly OutputRow[], strict: boolean): OutputRow[] {
  const isBroken = ({ status }: OutputRow) => status === "broken";
  const counts =
    strict || (rows.some(isBroken) && rows.every((row) => isBroken(row) || row.status === "skipped"));
  return rows.filter((row) => FAILED.has(row.status) || (counts && isBroken(row)));
}

function reportResult(
  result: PublishResult,
  cacheName: string,
  { key, dryRun, elapsedMs }: Run,
  { log, step }: Context,
): void {
  const { paths, bytes, leftOut } = result;
  for (const { path, reason } of leftOut) log.error(`left out ${path}: ${reason}`);
  const others = [
    paths.restated > 0 ? `${paths.restated} in the cache already` : "",
    paths.upstream > 0 ? `${paths.upstream} upstream` : "",
  ].filter(Boolean);
  const rest = others.length > 0 ? ` (${others.join(", ")})` : "";
  const elapsed = formatDuration(elapsedMs);
  if (dryRun) {
    const amount = `${formatCount(paths.uploaded, "path")}, ${formatBytes(bytes.nar)} of NARs`;
    log.info(`would upload ${amount}, to ${cacheName}${rest}`);
  } else if (paths.uploaded === 0 && leftOut.length > 0) {
    log.info(`nothing was uploaded to ${cacheName}${rest}, ${elapsed}`);
  } else if (paths.uploaded === 0 && result.generation !== null) {
    log.success(`recorded in ${cacheName}, nothing to upload${rest}, ${elapsed}`);
  } else if (paths.uploaded === 0) {
    log.success(`nothing to upload to ${cacheName}${rest}, ${elapsed}`);
  } else {
    const amount = `${formatBytes(bytes.nar)} of NARs, ${formatBytes(bytes.sent)} sent`;
    log.success(
      `published ${formatCount(paths.uploaded, "path")} to ${cacheName}${rest}: ${amount}, ${elapsed}`,
    );
  }
  if (key === undefined && !dryRun) {
    if (step) step.annotate("notice", UNSIGNED, "No signing key is set");
    else if (paths.uploaded > 0) log.info(UNSIGNED);
  }
  if (result.signedNow)
    log.info(`${formatCount(result.signedNow, "path")} had no signature before: ${REMEMBERED}`);
  if (leftOut.length > 0) {
    log.error(
      `${formatCount(leftOut.length, "path")} could not be published; mend the cause and publish again`,
    );
  }
}

/** Says what a publish has done: on the terminal, as JSON, and to GitHub Actions; and the exit status. */
import { randomUUID } from "node:crypto";
import { appendOutputs, appendSummary, formatOutputs } from "../actions/step-files.ts";
import { countStatuses, type OutputRow, type OutputStatus, renderText } from "../build/report.ts";
import { stepOutputFile, stepSummaryFile } from "../config.ts";
import type { Context } from "../context.ts";
import { EXIT_CODES, messageOf, NixcacheError } from "../errors.ts";
import { formatPublicKey, publicKeyOf, type SecretKey } from "../nar/signing-key.ts";
import { type CacheReference, formatReference } from "../oci/reference.ts";
import type { LeftOut } from "../publish/complete.ts";
import type { PublishResult } from "../publish/publish.ts";
import { adoptionLine } from "../terminal/adoption.ts";
import { formatBytes, formatCount, formatDuration } from "../terminal/format.ts";
import { publishSummary, unpublishedSummary } from "../terminal/publish-summary.ts";
import { resultJson } from "../terminal/result-json.ts";
import type { Holdings } from "./publish-paths.ts";

export interface Published {
  /** Undefined when there is nothing to tell of: nothing was to be published, or that failed. */
  readonly result: PublishResult | undefined;
  /** Of the cache afterwards, where there is a result. */
  readonly holdings?: Holdings;
  /** Of the outputs that were to be built. */
  readonly rows?: readonly OutputRow[];
  readonly buildMs?: number;
  /** Whether attributes that cannot be evaluated are failures. */
  readonly strict?: boolean;
  /** Of the command that was watched. */
  readonly exitCode?: number;
  /** What was named and cannot be published, where there is no result that says so. */
  readonly leftOut?: readonly LeftOut[];
  /** Why nothing was to be published. */
  readonly readOnly?: string;
  /** Why publishing failed, after the build. */
  readonly failure?: unknown;
}

interface Run {
  readonly reference: CacheReference;
  readonly key: SecretKey | undefined;
  readonly dryRun: boolean;
  readonly json: boolean;
  readonly elapsedMs: number;
}

const UNSIGNED =
  "not signed: clients refuse these paths unless they trust another key on them. Make a key with `nixcache keygen`, set it as NIX_SIGNING_KEY, and let clients trust its public key";

const REMEMBERED =
  "a Nix that was refused them before remembers that for up to 30 days, unless it is run once with `--option narinfo-cache-positive-ttl 0`";

/** @throws why publishing failed, after all else was told */
export function tell(published: Published, run: Run, context: Context): void {
  const { result, rows = [], exitCode, readOnly, failure } = published;
  const { step, log, setExitCode } = context;
  const cacheName = published.holdings?.cacheName ?? formatReference(run.reference);
  const failed = failuresOf(rows, published.strict === true);
  const leftOut = result?.leftOut ?? published.leftOut ?? [];
  const isTold = result !== undefined || failure !== undefined || readOnly !== undefined;
  if (isTold) {
    if (run.json) context.print(resultJson(jsonOf(published, run, cacheName)));
    if (result?.adopted) log.success(adoptionLine(result.adopted, cacheName));
    if (rows.length > 0) log.info(`outputs: ${countStatuses(rows)}\n${renderText(rows)}`);
    if (result) reportResult(result, cacheName, run, context);
    else for (const { path, reason } of leftOut) log.error(`left out ${path}: ${reason}`);
    tellStep(published, run, cacheName, failed.length, context);
    if (leftOut.length > 0) setExitCode(EXIT_CODES.incomplete);
  }
  if (failed.length > 0) {
    for (const row of failed) step?.annotate("error", `${row.status}: ${row.reason ?? ""}`, row.attribute);
    const others = run.dryRun || result === undefined ? "" : ", what could be built is published";
    log.error(`${formatCount(failed.length, "output")} of ${rows.length} failed${others}`);
    if (leftOut.length === 0) setExitCode(EXIT_CODES.build);
  }
  if (exitCode) setExitCode(exitCode);
  if (failure !== undefined) throw failure;
}

function jsonOf(published: Published, run: Run, cacheName: string): Record<string, unknown> {
  const { result, rows, buildMs, readOnly, failure } = published;
  const { dryRun, elapsedMs } = run;
  return {
    ...{ cache: cacheName, dryRun },
    ...(readOnly !== undefined && { readOnly: true }),
    ...(result ?? { generation: null }),
    ...(rows && { outputs: rows, buildMs }),
    ...(failure !== undefined && { error: describe(failure) }),
    elapsedMs,
  };
}

function describe(failure: unknown): { code: string; message: string; hint?: string } {
  if (!(failure instanceof NixcacheError)) return { code: "internal", message: messageOf(failure) };
  const { code, message, hint } = failure;
  return { code, message, ...(hint !== undefined && { hint }) };
}

function sentencesOf(failure: unknown): string {
  const { message, hint } = describe(failure);
  return hint === undefined ? message : `${message}. ${hint}`;
}

/** Into the files of a step of GitHub Actions. */
function tellStep(
  published: Published,
  { key, dryRun, elapsedMs }: Run,
  cacheName: string,
  failed: number,
  { step, log, env }: Context,
): void {
  const { result, holdings, rows, buildMs, readOnly, failure } = published;
  const publicKey = key && formatPublicKey(publicKeyOf(key));
  const summary = step && stepSummaryFile(env);
  if (summary !== undefined) {
    const uploadMs = elapsedMs - (buildMs ?? 0);
    const sections =
      result && holdings
        ? publishSummary({ result, holdings, rows, buildMs, uploadMs, dryRun, publicKey })
        : unpublishedSummary({
            cacheName,
            rows,
            why: readOnly ?? sentencesOf(failure),
            isExpected: readOnly !== undefined,
          });
    const problem = appendSummary(summary, sections);
    if (problem !== undefined) log.warn(problem);
  }
  const outputFile = step && stepOutputFile(env);
  if (outputFile === undefined) return;
  const outputs = {
    generation: result?.generation ?? "",
    uploaded: String(dryRun ? 0 : (result?.paths.uploaded ?? 0)),
    // Of what is not published nobody need know the key.
    "public-key": (result && publicKey) ?? "",
    failed: String(failed),
  };
  appendOutputs(outputFile, formatOutputs(outputs, `end-${randomUUID()}`));
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

import { cacheReference, upstreamUrls } from "../config.ts";
import { type Context, openCache, openUpstreams } from "../context.ts";
import { EXIT_CODES } from "../errors.ts";
import { formatBytes, formatCount } from "../terminal/format.ts";
import { resultJson } from "../terminal/result-json.ts";
import { describeKind, type Finding, isHarmful } from "../verify/finding.ts";
import { type Repair, repair } from "../verify/repair.ts";
import { type Verification, type VerifyContext, verify as verifyCache } from "../verify/verify.ts";
import { cacheArgs, command } from "./command.ts";
import { readTrust, requireSigner, SIGN_ARGS, signingKey, TRUST_ARGS } from "./trust.ts";
import { requireWrite } from "./write-access.ts";

export const verify = command(
  { name: "verify", description: "Check that everything a cache promises is there and right" },
  {
    ...cacheArgs("Where references may be too"),
    ...SIGN_ARGS,
    ...TRUST_ARGS,
    deep: { type: "boolean", description: "Download everything and check every byte" },
    repair: {
      type: "boolean",
      description: "Replace damaged generations by ones without the paths concerned",
    },
    json: { type: "boolean", description: "Print the findings as JSON" },
  },
  async (given, context) => {
    const { env, log } = context;
    const upstreams = openUpstreams(upstreamUrls(given.texts("upstream"), env), env);
    const wantsRepair = given.flag("repair");
    const trust = readTrust(given, context, wantsRepair ? signingKey(given, context) : undefined);
    if (wantsRepair) requireSigner(trust, "--repair");
    const reference = cacheReference(given.text("cache"), env);
    if (wantsRepair) await requireWrite(reference, context);
    using cache = openCache(reference, wantsRepair ? "write" : "read", context, { trust });
    const verifyContext: VerifyContext = { ...cache.protocol, upstreams, keys: trust.given };
    const verification = await verifyCache(verifyContext, { deep: given.flag("deep") });
    const isClean = !verification.findings.some(isHarmful);
    const repaired = wantsRepair ? await repair(cache.protocol, verification) : undefined;
    if (given.flag("json")) {
      const { counts, findings } = verification;
      context.print(
        resultJson({ cache: cache.protocol.store.name, clean: isClean, ...counts, findings, repaired }),
      );
    }
    report(verification, repaired, cache.protocol.store.name, context);
    if (isClean) return;
    if (repaired === undefined)
      log.info("Run verify --repair to leave out what cannot be served, then publish it again.");
    context.setExitCode(EXIT_CODES.damaged);
  },
);

function report(
  { counts, findings }: Verification,
  repaired: Repair | undefined,
  cacheName: string,
  { log }: Context,
): void {
  for (const finding of findings.filter((finding) => !isHarmful(finding))) log.warn(describe(finding));
  for (const finding of findings.filter(isHarmful)) log.error(describe(finding));
  for (const { name, by } of repaired?.replaced ?? []) {
    log.info(
      by === null ? `ended seg-${name}, of which nothing was left` : `replaced seg-${name} by seg-${by}`,
    );
  }
  for (const path of repaired?.lost ?? []) log.warn(`no longer in the cache: ${path}; publish it again`);
  const amount = [
    formatCount(counts.generations, "generation"),
    formatCount(counts.entries, "path"),
    `${formatCount(counts.blobs, "blob")} of ${formatBytes(counts.bytes)}`,
  ].join(", ");
  const unsigned =
    counts.unsigned > 0 ? `; ${formatCount(counts.unsigned, "path")} without a known signature` : "";
  const harmful = findings.filter(isHarmful).length;
  if (harmful === 0) log.success(`${cacheName} is clean: ${amount}${unsigned}`);
  else log.error(`${cacheName} has ${formatCount(harmful, "damage", "damages")}: ${amount}${unsigned}`);
}

function describe({ kind, subject, detail }: Finding): string {
  return `${subject}: ${describeKind(kind)}: ${detail}`;
}

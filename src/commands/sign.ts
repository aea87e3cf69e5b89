import { cacheReference } from "../config.ts";
import { openCache } from "../context.ts";
import { EXIT_CODES } from "../errors.ts";
import { signGenerations } from "../protocol/sign.ts";
import { formatCount } from "../terminal/format.ts";
import { resultJson } from "../terminal/result-json.ts";
import { cacheArgs, command, usageError } from "./command.ts";
import { readTrust, SIGN_ARGS, signingKey, TRUST_ARGS } from "./trust.ts";
import { requireWrite } from "./write-access.ts";

export const sign = command(
  { name: "sign", description: "Sign generations that were published without signing them" },
  {
    cache: cacheArgs("").cache,
    ...SIGN_ARGS,
    "trusted-public-key": {
      ...TRUST_ARGS["trusted-public-key"],
      description: "Sign also what consists of paths that this key has signed",
    },
    json: { type: "boolean", description: "Print what was signed as JSON" },
  },
  async (given, context) => {
    const { env, log } = context;
    const key = signingKey(given, context);
    if (key === undefined)
      throw usageError("sign: got no signing key, expected --signing-key-file or NIX_SIGNING_KEY");
    const reference = cacheReference(given.text("cache"), env);
    await requireWrite(reference, context);
    const trust = readTrust(given, context, key);
    using cache = openCache(reference, "write", context, { trust });
    const { name } = cache.protocol.store;
    const report = await signGenerations(cache.protocol, key);
    const { signed, already, succeeded, left } = report;
    if (given.flag("json")) context.print(resultJson({ cache: name, key: key.name, ...report }));
    for (const { name: old, by } of signed) log.info(`signed seg-${old} as seg-${by}`);
    if (succeeded > 0)
      log.info(`${formatCount(succeeded, "generation")} left unsigned, as a newer one succeeds them`);
    for (const { name: old, reason } of left) log.warn(`seg-${old} is left unsigned: ${reason}`);
    const before = already > 0 ? `, ${already} signed before` : "";
    log.success(`${name}: signed ${formatCount(signed.length, "generation")} by ${key.name}${before}`);
    if (left.length > 0) context.setExitCode(EXIT_CODES.incomplete);
  },
);

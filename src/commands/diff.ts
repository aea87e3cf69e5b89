import { cacheReference } from "../config.ts";
import { openCache } from "../context.ts";
import { diffGenerations } from "../inspect/diff.ts";
import { knownGenerations } from "../inspect/known.ts";
import { SELECTOR_HELP, selectGeneration } from "../inspect/selector.ts";
import { diffJson, diffLines, diffPathLines } from "../terminal/diff-report.ts";
import { cacheArgs, command, usageError } from "./command.ts";
import { readTrust, TRUST_ARGS } from "./trust.ts";

export const diff = command(
  { name: "diff", description: "Show what changed between two generations: paths, versions, sizes" },
  {
    a: { type: "positional", required: false, description: `The earlier one: ${SELECTOR_HELP}` },
    b: { type: "positional", required: false, description: "The later one" },
    cache: cacheArgs("").cache,
    ...TRUST_ARGS,
    paths: { type: "boolean", description: "List the paths that were added and removed instead" },
    json: { type: "boolean", description: "Print everything as JSON" },
  },
  async (given, context) => {
    const { env, screen, host, log } = context;
    const [before, after] = given.positionals;
    if (before === undefined || after === undefined)
      throw usageError("diff needs two generations, such as main~1 main");
    const trust = readTrust(given, context);
    using cache = openCache(cacheReference(given.text("cache"), env), "read", context, { trust });
    const known = await knownGenerations(cache.protocol);
    const difference = await diffGenerations(
      cache.protocol,
      selectGeneration(before, known),
      selectGeneration(after, known),
    );
    const [one, other] = [difference.before.record.system, difference.after.record.system];
    if (one !== other)
      log.warn(`the two are for different systems: ${one ?? "unknown"} and ${other ?? "unknown"}`);
    if (given.flag("json")) return context.print(diffJson(cache.protocol.store.name, difference));
    const lines = given.flag("paths")
      ? diffPathLines(difference, screen)
      : diffLines(difference, screen, host.now());
    await context.printAll(lines);
  },
);

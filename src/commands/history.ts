import { cacheReference, wholeNumber } from "../config.ts";
import { openCache } from "../context.ts";
import { readHistory } from "../inspect/history.ts";
import { knownGenerations } from "../inspect/known.ts";
import { formatCount } from "../terminal/format.ts";
import { historyJson, historyLines } from "../terminal/history-report.ts";
import { cacheArgs, command } from "./command.ts";
import { readTrust, TRUST_ARGS } from "./trust.ts";

const DEFAULT_LIMIT = 20;

export const history = command(
  { name: "history", description: "List what was published, from where, and what each publish added" },
  {
    cache: cacheArgs("").cache,
    ...TRUST_ARGS,
    limit: {
      type: "string",
      valueHint: "N",
      description: `The newest ones, which are read (${DEFAULT_LIMIT})`,
    },
    json: { type: "boolean", description: "Print the records as JSON" },
  },
  async (given, context) => {
    const { env, log, screen, host } = context;
    const limit = wholeNumber("--limit", given.text("limit"), DEFAULT_LIMIT, 1, 1_000_000_000);
    const trust = readTrust(given, context);
    using cache = openCache(cacheReference(given.text("cache"), env), "read", context, { trust });
    const { live } = await knownGenerations(cache.protocol);
    const items = await readHistory(cache.protocol, live, limit);
    const { name } = cache.protocol.store;
    if (given.flag("json")) return context.print(historyJson(name, items, live.length));
    await context.printAll(historyLines(items, screen, host.now()));
    const older = live.length - items.length;
    const hint = older > 0 ? `, ${older} of them older: see them with --limit ${live.length}` : "";
    log.info(`${name}: ${formatCount(live.length, "generation")}${hint}`);
    if (cache.protocol.database.view.v1Layer() !== undefined)
      log.info("Beside them is an index of nixcache-oci, which the first publish or gc makes a generation.");
  },
);

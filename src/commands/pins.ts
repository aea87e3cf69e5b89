import { cacheReference } from "../config.ts";
import { openCache } from "../context.ts";
import { listPins } from "../pins/list.ts";
import { refresh } from "../protocol/refresh.ts";
import { pinLines } from "../terminal/pin-list.ts";
import { resultJson } from "../terminal/result-json.ts";
import { cacheArgs, command } from "./command.ts";
import { readTrust, TRUST_ARGS } from "./trust.ts";

export const pins = command(
  { name: "pins", description: "List the pins of a cache" },
  {
    cache: cacheArgs("").cache,
    ...TRUST_ARGS,
    json: { type: "boolean", description: "Print them as JSON" },
  },
  async (given, context) => {
    const { env, host, log } = context;
    const trust = readTrust(given, context);
    using cache = openCache(cacheReference(given.text("cache"), env), "read", context, { trust });
    const { store, database } = cache.protocol;
    await refresh(cache.protocol, { list: true });
    const listed = listPins(database.view, host.now());
    if (given.flag("json")) context.print(resultJson({ cache: store.name, pins: listed }));
    else if (listed.length === 0) log.info(`${store.name} has no pins`);
    else context.print(pinLines(listed).join("\n"));
  },
);

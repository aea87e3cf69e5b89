import { cacheReference } from "../config.ts";
import { openCache } from "../context.ts";
import { unpin as unpinName } from "../pins/unpin.ts";
import { formatCount } from "../terminal/format.ts";
import { resultJson } from "../terminal/result-json.ts";
import { TOOL } from "../version.ts";
import { cacheArgs, command, usageError } from "./command.ts";
import { readTrust, requireSigner, SIGN_ARGS, signingKey, TRUST_ARGS } from "./trust.ts";

export const unpin = command(
  { name: "unpin", description: "End a pin; gc then frees what nothing else holds" },
  {
    name: { type: "positional", required: false, description: "The name of the pin" },
    cache: cacheArgs("").cache,
    ...SIGN_ARGS,
    ...TRUST_ARGS,
    json: { type: "boolean", description: "Print what ended as JSON" },
  },
  async (given, context) => {
    const { env, log } = context;
    const [name] = given.positionals;
    if (name === undefined) throw usageError("unpin takes the NAME of a pin");
    const trust = readTrust(given, context, signingKey(given, context));
    requireSigner(trust, "unpin");
    using cache = openCache(cacheReference(given.text("cache"), env), "write", context, { trust });
    const unpinned = await unpinName(cache.protocol, name, TOOL);
    const { ended, waiting } = unpinned;
    const cacheName = cache.protocol.store.name;
    if (given.flag("json")) context.print(resultJson({ cache: cacheName, name, ...unpinned }));
    const rest = waiting.length > 0 ? "; what is younger than a day ends with a later gc" : "";
    log.success(`${cacheName}: unpinned ${name}, ended ${formatCount(ended.length, "generation")}${rest}`);
  },
);

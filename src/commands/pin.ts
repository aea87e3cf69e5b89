import { cacheReference, wholeNumber } from "../config.ts";
import { openCache } from "../context.ts";
import { checkPinName, pin as pinPath } from "../pins/pin.ts";
import { formatCount } from "../terminal/format.ts";
import { resultJson } from "../terminal/result-json.ts";
import { TOOL } from "../version.ts";
import { cacheArgs, command, usageError } from "./command.ts";
import { resolveLink } from "./resolve-link.ts";
import { readTrust, requireSigner, SIGN_ARGS, signingKey, TRUST_ARGS } from "./trust.ts";

/** A hundred years. */
const MAX_DAYS = 36_500;

export const pin = command(
  {
    name: "pin",
    description: "Keep the closure of a path or output in the cache, whatever becomes of its source",
  },
  {
    name: {
      type: "positional",
      required: false,
      description: "What to call it; the same name again is a new revision",
    },
    what: {
      type: "positional",
      required: false,
      valueHint: "PATH",
      description: "A store path, its hash, a link such as ./result, or the name of a published output",
    },
    cache: cacheArgs("").cache,
    ...SIGN_ARGS,
    ...TRUST_ARGS,
    "keep-days": {
      type: "string",
      valueHint: "N",
      description: "The pin ends so many days after its newest revision",
    },
    "keep-revisions": { type: "string", valueHint: "N", description: "How many revisions of it stay (1)" },
    source: { type: "string", valueHint: "SOURCE", description: "Take the output of this source or branch" },
    system: { type: "string", valueHint: "SYSTEM", description: "Take the output for this system" },
    json: { type: "boolean", description: "Print what was pinned as JSON" },
  },
  async (given, context) => {
    const { env, log } = context;
    const [name, what] = given.positionals;
    if (name === undefined || what === undefined) throw usageError("pin takes a NAME and a PATH or OUTPUT");
    checkPinName(name);
    const days = given.text("keep-days");
    const terms = {
      keepDays: days === undefined ? undefined : wholeNumber("--keep-days", days, 1, 1, MAX_DAYS),
      keepRevisions: wholeNumber("--keep-revisions", given.text("keep-revisions"), 1, 1, 1_000_000),
    };
    const wanted = { what, source: given.text("source"), system: given.text("system") };
    const trust = readTrust(given, context, signingKey(given, context));
    requireSigner(trust, "pin");
    using cache = openCache(cacheReference(given.text("cache"), env), "write", context, { trust });
    const pinned = await pinPath(cache.protocol, name, wanted, terms, {
      tool: TOOL,
      resolveLink: (path) => resolveLink(path, context),
    });
    const { generation, storePath, paths, elsewhere } = pinned;
    const cacheName = cache.protocol.store.name;
    if (given.flag("json")) context.print(resultJson({ cache: cacheName, name, ...terms, ...pinned }));
    const others = elsewhere > 0 ? `, ${formatCount(elsewhere, "reference")} of it upstream` : "";
    const amount = `${storePath} (${formatCount(paths, "path")}${others})`;
    if (generation === null) log.success(`${cacheName}: ${name} is pinned to ${amount} already`);
    else log.success(`${cacheName}: pinned ${name} to ${amount}`);
  },
);

import { MAX_SEARCH_WORDS, type Order } from "../cache/catalog.ts";
import { cacheReference, wholeNumber } from "../config.ts";
import { openCache } from "../context.ts";
import { NixcacheError, preview } from "../errors.ts";
import { withList } from "../inspect/list.ts";
import { listJson, listLines, listTotals } from "../terminal/list-report.ts";
import { cacheArgs, command, usageError } from "./command.ts";
import { readTrust, TRUST_ARGS } from "./trust.ts";

/** What `--sort` takes. */
const ORDERS: Readonly<Record<string, Order>> = {
  name: "name",
  size: "size",
  closure: "closure",
  age: "added",
};

export const list = command(
  { name: "list", description: "List the store paths in a cache" },
  {
    "pattern…": {
      type: "positional",
      required: false,
      description: "Words that all must be in a name, whatever their case; or a store path or its hash",
    },
    cache: cacheArgs("").cache,
    ...TRUST_ARGS,
    sort: {
      type: "string",
      valueHint: Object.keys(ORDERS).join("|"),
      description: "By name, size, closure (the largest first) or age (the newest first) (name)",
    },
    limit: { type: "string", valueHint: "N", description: "List at most this many" },
    generations: {
      type: "boolean",
      description: "Say which generations hold each path; reads the index of every generation",
    },
    json: { type: "boolean", description: "Print the list as JSON" },
  },
  async (given, context) => {
    const { env, log, screen, host } = context;
    const text = searchText(given.positionals);
    const order = orderOf(given.text("sort") ?? "name");
    const limit = given.text("limit");
    const json = given.flag("json");
    const options = {
      ...{ text, order, holders: given.flag("generations") },
      limit: limit === undefined ? undefined : wholeNumber("--limit", limit, 0, 1, 1_000_000_000),
      closures: json || screen !== undefined,
    };
    const trust = readTrust(given, context);
    using cache = openCache(cacheReference(given.text("cache"), env), "read", context, { trust });
    const { store, database } = cache.protocol;
    await withList(cache.protocol, options, async (found) => {
      const generations = options.holders ? database.view.generations() : [];
      const byName = new Map(generations.map((generation) => [generation.name, generation]));
      await context.printAll(
        json ? listJson(store.name, found) : listLines(found, byName, screen, host.now()),
      );
      if (text !== "" && found.totals.paths === 0) throw absent(text, store.name);
      if (!json) log.info(listTotals(store.name, found, text));
    });
  },
);

/** @throws `usage` for what can match no name */
function searchText(words: readonly string[]): string {
  const split = words
    .join(" ")
    .split(/\s+/)
    .filter((word) => word !== "");
  if (split.length > MAX_SEARCH_WORDS)
    throw usageError(`got ${split.length} words to search for, expected at most ${MAX_SEARCH_WORDS}`);
  const wildcard = split.find((word) => word.includes("*"));
  if (wildcard === undefined) return split.join(" ");
  throw new NixcacheError("usage", `got ${JSON.stringify(wildcard)}, expected parts of names`, {
    hint: "There are no wildcards: a word is found anywhere in a name.",
  });
}

function absent(text: string, cacheName: string): NixcacheError {
  return new NixcacheError("absent", `no path of ${cacheName} has ${preview(text)} in its name`, {
    hint: "Words are looked for anywhere in a name, and all of them must be there.",
  });
}

function orderOf(text: string): Order {
  const order = Object.hasOwn(ORDERS, text) ? ORDERS[text] : undefined;
  if (order !== undefined) return order;
  const names = Object.keys(ORDERS).join(", ");
  throw usageError(`--sort: got ${JSON.stringify(text)}, expected one of ${names}`);
}

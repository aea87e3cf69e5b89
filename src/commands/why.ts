import { cacheReference, gcPolicy } from "../config.ts";
import { type Context, openCache } from "../context.ts";
import { EXIT_CODES } from "../errors.ts";
import { explain, isHeld } from "../inspect/why.ts";
import { isBaseName, isStoreHash, storeHashOf } from "../nar/store-path.ts";
import { whyJson, whyLines } from "../terminal/why-report.ts";
import { cacheArgs, command, usageError } from "./command.ts";
import { resolveLink } from "./resolve-link.ts";
import { readTrust, TRUST_ARGS } from "./trust.ts";

export const why = command(
  { name: "why", description: "Tell which generations hold a path, or since when none does" },
  {
    path: {
      type: "positional",
      required: false,
      valueHint: "PATH",
      description: "A store path, its base name or hash, or a link to it such as ./result",
    },
    cache: cacheArgs("").cache,
    ...TRUST_ARGS,
    json: { type: "boolean", description: "Print the answer as JSON" },
  },
  async (given, context) => {
    const { env, screen, host } = context;
    const [path] = given.positionals;
    if (path === undefined) throw usageError("why needs the PATH that it is about");
    const hash = await hashOf(path, context);
    const trust = readTrust(given, context);
    using cache = openCache(cacheReference(given.text("cache"), env), "read", context, { trust });
    const answer = await explain(cache.protocol, hash, gcPolicy({}));
    if (given.flag("json")) context.print(whyJson(cache.protocol.store.name, hash, answer));
    else await context.printAll(whyLines(answer, hash, screen, host.now()));
    if (!isHeld(answer)) context.setExitCode(EXIT_CODES.absent);
  },
);

/** Needs no Nix for a store path's own name. @throws `nix-store` */
async function hashOf(path: string, context: Context): Promise<string> {
  if (isStoreHash(path)) return path;
  if (isBaseName(path)) return storeHashOf(path);
  return storeHashOf(await resolveLink(path, context));
}

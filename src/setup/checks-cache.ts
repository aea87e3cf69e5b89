/** Whether the cache can be reached, by whom, what is in it, and whether it is signed. */
import { statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { NixcacheError, systemCode } from "../errors.ts";
import { formatPublicKey } from "../nar/signing-key.ts";
import type { Registry } from "../oci/rights.ts";
import { CLOCK_AHEAD_MS } from "../protocol/clock.ts";
import { type Check, type Found, note, ok, skipped, wrong } from "./check.ts";
import type { Facts } from "./facts.ts";
import { sample } from "./sample.ts";
import { age, paths } from "./words.ts";

/** An index of a million paths takes some 500 MB; below this one of a few thousand may no longer fit. Bytes. */
const LEAST_DISK = 256 * 1024 ** 2;

const SAMPLE_PATHS = 50;

export interface CacheChecks {
  /** Undefined for a cache in a folder. */
  readonly registry: Registry | undefined;
  /** The file of the local index. */
  readonly indexFile: string;
}

export function cacheChecks(facts: Facts, { registry, indexFile }: CacheChecks): Check[] {
  return [
    { name: "cache", run: () => checkPull(facts, registry) },
    ...(registry === undefined
      ? []
      : [
          { name: "push", run: () => checkPush(facts, registry) },
          { name: "clock", run: () => checkClock(registry) },
        ]),
    { name: "publishes", run: () => checkPublishes(facts) },
    { name: "signatures", run: () => checkSignatures(facts) },
    { name: "disk", run: () => checkDisk(indexFile) },
  ];
}

async function checkPull(facts: Facts, registry: Registry | undefined): Promise<Found> {
  const { cacheName } = facts;
  const empty = wrong(`there is nothing at ${cacheName} yet`, "Publish something: nixcache publish --help");
  if (registry !== undefined) return (await registry.canPull()) ? ok(`${cacheName} can be read`) : empty;
  const { view, error } = await facts.index();
  if (error !== undefined) return wrong(error.message, "Name another folder, or mend this one.");
  return view.publishes().length === 0 ? empty : ok(`${cacheName} can be read`);
}

async function checkPush({ cacheName }: Facts, registry: Registry): Promise<Found> {
  if ((await registry.canPush()) === undefined) return ok("no token is set: this machine only reads");
  return ok(`${cacheName} can be written to with the token that is set`);
}

async function checkClock(registry: Registry): Promise<Found> {
  const ahead = await registry.clockAheadMs().catch((error) => {
    // What is wrong with it is the first check's to say.
    if (error instanceof NixcacheError && error.code === "unreachable") return undefined;
    throw error;
  });
  if (ahead === undefined) return skipped("the registry does not tell the time");
  if (Math.abs(ahead) < CLOCK_AHEAD_MS) return ok("this clock and the registry's agree");
  const text = `this clock is ${age(Math.abs(ahead))} ${ahead > 0 ? "behind" : "ahead of"} the registry's`;
  return wrong(text, "Set it right, such as with timedatectl set-ntp true: publishing and gc go by it.");
}

async function checkPublishes({ index, host, cacheName }: Facts): Promise<Found> {
  const { view, error } = await index();
  const newest = view.publishes().at(-1);
  if (newest === undefined) return skipped(error?.message ?? `nothing was published to ${cacheName} yet`);
  const { time, source } = newest.record;
  const text = `${paths(view.count())}; the newest publish was ${age(host.now() - Date.parse(time))} ago, of ${source}`;
  return error === undefined ? ok(text) : note(`${text}; what came since is not known`);
}

async function checkSignatures(facts: Facts): Promise<Found> {
  const { view } = await facts.index();
  const keys = await facts.keys();
  if (keys.length === 0) return skipped("there is no key to check signatures by");
  const { signed, unsigned } = sample(view, keys, SAMPLE_PATHS, facts.host);
  const names = keys.map((key) => formatPublicKey(key).split(":")[0]).join(", ");
  const count = signed.length + unsigned.length;
  if (count === 0) return skipped("the cache has no path that needs a signature");
  if (unsigned.length === 0) return ok(`a sample of ${paths(count)} is signed by ${names}`);
  return wrong(
    `of a sample of ${paths(count)} ${unsigned.length} have no good signature by ${names}, such as ${unsigned[0]}`,
    "Publish them again with the key; nixcache verify lists them all.",
  );
}

async function checkDisk(indexFile: string): Promise<Found> {
  let folder = dirname(indexFile);
  for (;;) {
    try {
      const { bavail, bsize } = await statfs(folder);
      const free = Number(bavail) * Number(bsize);
      const text = `${Math.round(free / 1024 ** 2)} MiB are free for the index in ${folder}`;
      if (free >= LEAST_DISK) return ok(text);
      return wrong(text, "Make room there, or set NIXCACHE_INDEX_DIR to another folder.");
    } catch (error) {
      if (systemCode(error) !== "ENOENT" || dirname(folder) === folder) throw error;
      folder = dirname(folder);
    }
  }
}

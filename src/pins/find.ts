/** What a person names to pin: a path, or an output by its name in the publish records. */
import type { Generation } from "../cache/index-layer.ts";
import type { IndexReader } from "../cache/index-reader.ts";
import { pinName } from "../cache/pin.ts";
import { NixcacheError, preview } from "../errors.ts";
import { parseNarInfo } from "../nar/narinfo.ts";
import { isBaseName, isStoreHash, STORE_DIR, storeHashOf } from "../nar/store-path.ts";

/** Names and places that a message lists. */
const MAX_LISTED = 8;

export interface Wanted {
  /** A store path or its base name, its hash, the name of an output, or a link such as ./result. */
  readonly what: string;
  /** Of outputs only those of this source or branch. */
  readonly source?: string | undefined;
  readonly system?: string | undefined;
}

export interface Found {
  /** As the pin calls it: the output's name, or the path's base name. */
  readonly label: string;
  readonly storePath: string;
  /** The publish that the output is from. */
  readonly from?: Generation;
}

/**
 * @param resolveLink the store path that a file of this machine is or leads to
 * @throws `absent` when nothing has that name, or the cache does not have the path; `usage` when several things do
 */
export async function findWanted(
  view: IndexReader,
  wanted: Wanted,
  resolveLink: (path: string) => Promise<string>,
): Promise<Found> {
  const { what } = wanted;
  const inStore = what.startsWith(`${STORE_DIR}/`) ? what.slice(STORE_DIR.length + 1).split("/", 1)[0] : what;
  if (inStore !== undefined && (isStoreHash(inStore) || isBaseName(inStore))) return findPath(view, inStore);
  const publishes = view
    .generations()
    .filter(({ record }) => pinName(record) === undefined && !record.partial);
  const isPath = what.includes("/") && !publishes.some(({ record }) => Object.hasOwn(record.roots, what));
  return isPath ? findPath(view, await resolveLink(what)) : findOutput(view, publishes, wanted);
}

function findPath(view: IndexReader, path: string): Found {
  const hash = isStoreHash(path) ? path : storeHashOf(path);
  const narinfo = view.narinfo(hash);
  if (narinfo === undefined) {
    throw new NixcacheError("absent", `${path} is not in the cache, so there is nothing to hold`, {
      hint: "Publish it first. What an upstream cache has is not published, and needs no pin.",
    });
  }
  const { storePath } = parseNarInfo(narinfo, hash);
  return { label: storePath.slice(STORE_DIR.length + 1), storePath };
}

/** The newest whole publish of each source and system that has the output; all must agree on the path. */
function findOutput(view: IndexReader, publishes: readonly Generation[], wanted: Wanted): Found {
  const { what, source, system } = wanted;
  const newest = new Map<string, Generation>();
  for (const generation of publishes) {
    const { record } = generation;
    if (!Object.hasOwn(record.roots, what)) continue;
    if (source !== undefined && source !== record.source && source !== record.branch) continue;
    if (system !== undefined && system !== record.system) continue;
    const place = JSON.stringify([record.source, record.system ?? null]);
    if ((newest.get(place)?.name ?? "") < generation.name) newest.set(place, generation);
  }
  const found = [...newest.values()].sort((a, b) => (a.name < b.name ? 1 : -1));
  const [from] = found;
  if (from === undefined) throw unknownOutput(publishes, wanted);
  const storePath = pathOf(from, what);
  if (found.some((other) => pathOf(other, what) !== storePath)) throw ambiguous(found, what);
  return { ...findPath(view, storePath), label: what, from };
}

function pathOf({ record }: Generation, output: string): string {
  return record.roots[output] ?? "";
}

function unknownOutput(publishes: readonly Generation[], { what, source, system }: Wanted): NixcacheError {
  const names = new Set(publishes.flatMap(({ record }) => Object.keys(record.roots)));
  const similar = [...names].filter((name) => name.toLowerCase().includes(what.toLowerCase())).sort();
  const where = [source && ` of ${source}`, system && ` for ${system}`].filter(Boolean).join("");
  const hint =
    similar.length > 0 && !names.has(what)
      ? `Outputs with such a name: ${listed(similar)}.`
      : "Name a store path, or an output as `nixcache publish --json` shows it; a link needs a slash, as in ./result.";
  return new NixcacheError("absent", `no publish${where} has an output ${preview(what)}`, { hint });
}

function ambiguous(found: readonly Generation[], what: string): NixcacheError {
  const places = found.map(
    (generation) =>
      `${generation.record.source}${generation.record.system ? ` for ${generation.record.system}` : ""} (${pathOf(generation, what)})`,
  );
  return new NixcacheError("usage", `several sources have an output ${preview(what)}: ${listed(places)}`, {
    hint: "Say which one by --source or --system, or name the path.",
  });
}

function listed(texts: readonly string[]): string {
  const more = texts.length > MAX_LISTED ? ` and ${texts.length - MAX_LISTED} more` : "";
  return texts.slice(0, MAX_LISTED).join(", ") + more;
}

/** The pins of a cache, for people and machines. */
import { readSizes } from "../cache/catalog.ts";
import type { IndexReader } from "../cache/index-reader.ts";
import { type Pin, pinsOf } from "../cache/pin.ts";
import { type GenerationName, generationTime } from "../cache/tags.ts";
import { isStoreHash, STORE_HASH_LENGTH } from "../nar/store-path.ts";
import { closureLines } from "../protocol/restate.ts";

export interface ListedPin {
  readonly name: string;
  /** The output's name, or the path's base name. */
  readonly label: string;
  readonly path: string;
  /** ISO 8601 in UTC: when its newest revision was pinned, and until when it lives; null for ever. */
  readonly since: string;
  readonly until: string | null;
  /** Its time is over, and the next gc ends it. */
  readonly over: boolean;
  /** How many revisions live; null for all. */
  readonly keepRevisions: number | null;
  /** Those that are there, the newest first. */
  readonly revisions: readonly {
    readonly generation: GenerationName;
    readonly path: string;
    readonly time: string;
  }[];
  /** Paths of its newest closure that the cache has, and their bytes, compressed. */
  readonly paths: number;
  readonly bytes: number;
}

/** In the order of their names. */
export function listPins(view: IndexReader, now: number): ListedPin[] {
  return [...pinsOf(view.generations()).values()].flatMap((pin) => listPin(pin, view, now) ?? []);
}

function listPin({ name, newest, generations, until, keepRevisions }: Pin, view: IndexReader, now: number) {
  if (newest === undefined) return undefined;
  const [label = "", path = ""] = Object.entries(newest.record.roots)[0] ?? [];
  const time = (generation: GenerationName) => new Date(generationTime(generation)).toISOString();
  // Records are a publisher's word: what is no store path leads nowhere.
  const hash = path.slice(path.lastIndexOf("/") + 1).slice(0, STORE_HASH_LENGTH);
  const { lines } = closureLines(view, isStoreHash(hash) ? [hash] : []);
  return {
    name,
    label,
    path,
    since: time(newest.name),
    until: until === undefined ? null : new Date(until).toISOString(),
    over: until !== undefined && now >= until,
    keepRevisions: Number.isFinite(keepRevisions) ? keepRevisions : null,
    revisions: generations
      .filter(({ place }) => place.kind === "revision")
      .map(({ name: generation, record }) => ({
        generation,
        path: Object.values(record.roots)[0] ?? "",
        time: time(generation),
      })),
    paths: lines.length,
    bytes: lines.reduce((sum, { narinfo }) => sum + (readSizes(narinfo).fileSize ?? 0), 0),
  };
}

/**
 * Pins: generations of the source `pin:NAME`. The newest says for how long the pin lives and how many revisions of it
 * do. What is under a tag can never be taken back, so a pin is ended by one more generation of it: one without entries.
 */
import type { Generation } from "./index-layer.ts";
import { PIN_PREFIX, type PublishRecord } from "./record.ts";
import { type GenerationName, generationTime } from "./tags.ts";

const DAY_MS = 86_400_000;

/** The last moment that a date can be. */
const LAST_MS = 8_640_000_000_000_000;

/** What a generation is to its pin. */
export type PinPlace =
  /** `rank` is 0 for the newest revision, 1 for the one before. */
  | { readonly kind: "revision"; readonly rank: number }
  /** A newer one in a row, `by`, has the same paths, and is the revision. */
  | { readonly kind: "repeated"; readonly by: GenerationName }
  /** The pin was ended by `by` since. */
  | { readonly kind: "unpinned"; readonly by: GenerationName }
  /** It ends the pin itself. */
  | { readonly kind: "unpin" };

export interface Pin {
  readonly name: string;
  /** The newest first. */
  readonly generations: readonly (Generation & { readonly place: PinPlace })[];
  /** The newest revision; undefined for a pin that was ended. */
  readonly newest: Generation | undefined;
  /** How many revisions live. */
  readonly keepRevisions: number;
  /** In milliseconds since 1970; undefined for a pin without an end. */
  readonly until: number | undefined;
}

/** The name of the pin that a generation is of. */
export function pinName({ source }: Pick<PublishRecord, "source">): string | undefined {
  return source.startsWith(PIN_PREFIX) ? source.slice(PIN_PREFIX.length) : undefined;
}

/** Whether the record ends its pin. */
export function isUnpin(record: PublishRecord): boolean {
  return pinName(record) !== undefined && record.entries === 0;
}

/** The pins among any generations that are alive, by name in the order of their names. */
export function pinsOf(generations: readonly Generation[]): Map<string, Pin> {
  const byName = Map.groupBy(generations, ({ record }) => pinName(record));
  const pins = [...byName].flatMap(([name, some]) => (name === undefined ? [] : [readPin(name, some)]));
  return new Map(pins.sort((a, b) => (a.name < b.name ? -1 : 1)).map((pin) => [pin.name, pin]));
}

function readPin(name: string, generations: readonly Generation[]): Pin {
  const newestFirst = [...generations].sort((a, b) => (a.name < b.name ? 1 : -1));
  let unpin: GenerationName | undefined;
  let revision: Generation | undefined;
  let rank = -1;
  const placeOf = (generation: Generation): PinPlace => {
    if (isUnpin(generation.record)) {
      unpin ??= generation.name;
      return { kind: "unpin" };
    }
    if (unpin !== undefined) return { kind: "unpinned", by: unpin };
    if (revision !== undefined && samePaths(revision.record, generation.record))
      return { kind: "repeated", by: revision.name };
    revision = generation;
    return { kind: "revision", rank: ++rank };
  };
  const placed = newestFirst.map((generation) => ({ ...generation, place: placeOf(generation) }));
  const newest = placed.find(({ place }) => place.kind === "revision");
  const { keepDays, keepRevisions = Number.POSITIVE_INFINITY } = newest?.record ?? {};
  const until =
    newest && keepDays !== undefined
      ? Math.min(generationTime(newest.name) + keepDays * DAY_MS, LAST_MS)
      : undefined;
  return { name, generations: placed, newest, keepRevisions, until };
}

function samePaths(a: PublishRecord, b: PublishRecord): boolean {
  const paths = ({ roots }: PublishRecord) => JSON.stringify(Object.values(roots).sort());
  return paths(a) === paths(b);
}

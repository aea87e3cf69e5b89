/**
 * The tags of a cache. Everything under a tag of ours is immutable, except the root.
 *
 *     seg-<UTC time>-<id>          a generation
 *     hold-<UTC time>-<id>-<n>     keeps blobs of the generation with that id from being collected
 *     dead-<UTC time>-<id>         the generation with that id is over, for good, since that time
 *     nixcache-index               the root
 *     adopted-<64 hexadecimal>     the index of nixcache-oci with that digest was adopted by a generation that is over
 *
 * `<UTC time>` is `YYYYMMDDThhmmssZ`, so that generations sort by time as text; `<id>` is 16 hexadecimal
 * characters. Tags allow only `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`.
 */
import { type Digest, digestHex } from "../oci/digest.ts";

export const ROOT_TAG = "nixcache-index";

/** The tag of https://github.com/cmspam/nixcache-oci, which we never write. */
export const V1_TAG = "cache-index";

/** The time and id that a generation's tags share, such as `20261123T175346Z-0123456789abcdef`. */
export type GenerationName = string;

/** The second half of a name: 64 random bits, which alone tell generations apart. */
export type GenerationId = string;

const NAME = "\\d{8}T\\d{6}Z-[0-9a-f]{16}";
const SEGMENT = new RegExp(`^seg-(${NAME})$`);
const DEAD = new RegExp(`^dead-(${NAME})$`);
const HOLD = new RegExp(`^hold-(${NAME})-(\\d{1,9})$`);
const ADOPTED = /^adopted-([0-9a-f]{64})$/;

export type Tag =
  | { kind: "segment"; name: GenerationName }
  | { kind: "dead"; id: GenerationId; since: number }
  | { kind: "hold"; name: GenerationName; number: number }
  | { kind: "adopted"; index: Digest }
  | { kind: "root" };

/** Undefined for a tag that is not ours: other tools may keep tags beside us. */
export function parseTag(tag: string): Tag | undefined {
  if (tag === ROOT_TAG) return { kind: "root" };
  const segment = SEGMENT.exec(tag)?.[1];
  if (segment !== undefined) return { kind: "segment", name: segment };
  const dead = DEAD.exec(tag)?.[1];
  if (dead !== undefined) return { kind: "dead", id: generationId(dead), since: generationTime(dead) };
  const [, hold, number] = HOLD.exec(tag) ?? [];
  if (hold !== undefined) return { kind: "hold", name: hold, number: Number(number) };
  const adopted = ADOPTED.exec(tag)?.[1];
  if (adopted !== undefined) return { kind: "adopted", index: `sha256:${adopted}` };
  return undefined;
}

export function isGenerationName(text: unknown): text is GenerationName {
  return typeof text === "string" && SEGMENT.test(`seg-${text}`);
}

/** @param now milliseconds since 1970. @param id 16 hexadecimal characters. */
export function generationName(now: number, id: string): GenerationName {
  const time = new Date(now)
    .toISOString()
    .replace(/\.\d+Z$/, "Z")
    .replace(/[-:]/g, "");
  return `${time}-${id}`;
}

/** When the generation was named, in milliseconds since 1970, by the clock of its publisher. */
export function generationTime(name: GenerationName): number {
  const [, y, mo, d, h, mi, s] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z/.exec(name) ?? [];
  return Date.UTC(Number(y), Number(mo) - 1, Number(d), Number(h), Number(mi), Number(s));
}

export function generationId(name: GenerationName): GenerationId {
  return name.slice(name.indexOf("-") + 1);
}

export const segmentTag = (name: GenerationName): string => `seg-${name}`;
/** @param now when it ended, in milliseconds since 1970 */
export const deadTag = (name: GenerationName, now: number): string =>
  `dead-${generationName(now, generationId(name))}`;
/** @param index of the blob that the old tag names */
export const adoptedTag = (index: Digest): string => `adopted-${digestHex(index)}`;
export const holdTag = (name: GenerationName, number: number): string => `hold-${name}-${number}`;

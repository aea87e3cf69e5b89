/**
 * The tags of a cache. Everything under a tag of ours is immutable, except the root.
 *
 *     seg-<UTC time>-<id>          a generation
 *     hold-<UTC time>-<id>-<n>     keeps blobs of the generation with that id from being collected
 *     dead-<UTC time>-<id>         the generation with that id is over, for good, since that time
 *     nixcache-index               the root
 *     adopted-<64 hexadecimal>     the index of nixcache-oci with that digest was adopted by a generation that is over
 *
 * `<UTC time>` is `YYYYMMDDthhmmssz`, so that generations sort by time as text; `<id>` is 16 hexadecimal
 * characters. Tags allow only `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`.
 *
 * Some registries (Gitea, Forgejo) keep tags in lower case, whatever they were given: so ours are in lower case. Earlier
 * versions wrote `T` and `Z`. Both forms of a tag mean the same: names are in lower case in memory, and a tag keeps
 * the form that it has on the registry.
 */
import { type Digest, digestHex } from "../oci/digest.ts";

export const ROOT_TAG = "nixcache-index";

/** The tag of https://github.com/cmspam/nixcache-oci, which we never write. */
export const V1_TAG = "cache-index";

/** The time and id that a generation's tags share, such as `20261123t175346z-0123456789abcdef`. */
export type GenerationName = string;

/** The second half of a name: 64 random bits, which alone tell generations apart. */
export type GenerationId = string;

const GENERATION_ID_LENGTH = 16;

const NAME = "\\d{8}(?:t\\d{6}z|T\\d{6}Z)-[0-9a-f]{16}";
const WHOLE_NAME = new RegExp(`^${NAME}$`);
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
  if (segment !== undefined) return { kind: "segment", name: segment.toLowerCase() };
  const dead = DEAD.exec(tag)?.[1]?.toLowerCase();
  if (dead !== undefined) return { kind: "dead", id: generationId(dead), since: generationTime(dead) };
  const [, hold, number] = HOLD.exec(tag) ?? [];
  if (hold !== undefined) return { kind: "hold", name: hold.toLowerCase(), number: Number(number) };
  const adopted = ADOPTED.exec(tag)?.[1];
  if (adopted !== undefined) return { kind: "adopted", index: `sha256:${adopted}` };
  return undefined;
}

/** The name that a text of either form is; undefined for any other value. */
export function parseGenerationName(text: unknown): GenerationName | undefined {
  return typeof text === "string" && WHOLE_NAME.test(text) ? text.toLowerCase() : undefined;
}

/** @param now milliseconds since 1970. @param id 16 hexadecimal characters. */
export function generationName(now: number, id: string): GenerationName {
  const time = new Date(now)
    .toISOString()
    .replace(/\.\d+Z$/, "z")
    .replace(/[-:]/g, "")
    .toLowerCase();
  return `${time}-${id}`;
}

/** When the generation was named, in milliseconds since 1970, by the clock of its publisher. */
export function generationTime(name: GenerationName): number {
  const [, y, mo, d, h, mi, s] = /^(\d{4})(\d\d)(\d\d)t(\d\d)(\d\d)(\d\d)z/.exec(name) ?? [];
  return Date.UTC(Number(y), Number(mo) - 1, Number(d), Number(h), Number(mi), Number(s));
}

export function generationId(name: GenerationName): GenerationId {
  return name.slice(name.indexOf("-") + 1);
}

export const segmentTag = (name: GenerationName): string => `seg-${name}`;
export const holdTag = (name: GenerationName, number: number): string => `hold-${name}-${number}`;
/** @param index of the blob that the old tag names */
export const adoptedTag = (index: Digest): string => `adopted-${digestHex(index)}`;

/**
 * @param segment the tag that the generation has: versions before lower case, which see no other generations, must see
 *   that it is over
 * @param now when it ended, in milliseconds since 1970
 */
export function deadTag(segment: string, now: number): string {
  const id = segment.slice(-GENERATION_ID_LENGTH);
  return inFormOf(segment, `dead-${generationName(now, id)}`);
}

/** A tag of a generation in the form, of the two, that another tag has. */
export function inFormOf(model: string, tag: string): string {
  return hasCapitals(model) === hasCapitals(tag) ? tag : otherForm(tag);
}

/** The forms that a tag may have on a registry, the given one first. */
export function tagForms(tag: string): readonly string[] {
  const other = otherForm(tag);
  return other === tag ? [tag] : [tag, other];
}

/** The time within a tag of a generation. */
const TIME = /^((?:seg|dead|hold)-\d{8})([tT])(\d{6})([zZ])(?=-)/;

function hasCapitals(tag: string): boolean {
  return TIME.exec(tag)?.[2] === "T";
}

function otherForm(tag: string): string {
  const [t, z] = hasCapitals(tag) ? ["t", "z"] : ["T", "Z"];
  return tag.replace(TIME, (_, day: string, _t, time: string) => `${day}${t}${time}${z}`);
}

/**
 * The usual line of an index layer: one that publish has written for a path with a NAR of one part, and nothing beside
 * it but its listing. Nearly every line is one, and one regular expression tells, in a tenth of the time that parsing
 * the JSON and the narinfo takes. What it does not know it leaves to `parseLine`, with which it agrees on the rest.
 */
import type { EntryLine } from "./entry.ts";

const HASH = "[0-9a-df-np-sv-z]{32}";
const BASE_NAME = `${HASH}-[0-9A-Za-z+._?=-]{1,211}`;
/** 52 digits hold 260 bits: the first one has only its lowest. */
const SHA256 = "sha256:[01][0-9a-df-np-sv-z]{51}";
/** Exact as a number of JavaScript. */
const COUNT = "(?:0|[1-9][0-9]{0,14})";
const BLOB = '"sha256:[0-9a-f]{64}"';
/** Three numbers at most are captured: the blob's size, the offset and the length in it. */
const PART = `\\[${BLOB},(${COUNT})(?:,(${COUNT}),(${COUNT}))?\\]`;

const NARINFO = [
  `StorePath: /nix/store/(${HASH})-[0-9A-Za-z+._?=-]{1,211}`,
  "URL: nar/([0-9A-Za-z][0-9A-Za-z._-]*)",
  "Compression: zstd",
  `FileHash: ${SHA256}`,
  `FileSize: (${COUNT})`,
  `NarHash: ${SHA256}`,
  "NarSize: [1-9][0-9]{0,14}",
  `References: (?:${BASE_NAME}(?: ${BASE_NAME})*)?`,
];

const LINE = new RegExp(
  `^\\{"narinfo":"(?:${NARINFO.join("\\\\n")}\\\\n(?:Deriver: ${BASE_NAME}\\\\n)?` +
    `(?:Sig: [0-9A-Za-z._-]+:[0-9A-Za-z+/=]+\\\\n)*)",` +
    `"parts":\\[${PART}\\],"added":(${COUNT})(?:,"listing":${PART})?\\}$`,
);

const NARINFO_START = '{"narinfo":"'.length;

/** The line; undefined when it is another one, right or wrong. */
export function parseUsualLine(text: string): EntryLine | undefined {
  const found = LINE.exec(text);
  if (found === null) return undefined;
  const [, storeHash = "", file = "", fileSize, size, offset, length, added] = found;
  if (Number(fileSize) !== lengthWithin(size, offset, length)) return undefined;
  if (found[8] !== undefined && lengthWithin(found[8], found[9], found[10]) === undefined) return undefined;
  // The newlines of the narinfo are all that is escaped.
  const end = text.indexOf('"', NARINFO_START);
  return {
    storeHash,
    file,
    narinfo: text.slice(NARINFO_START, end).replaceAll("\\n", "\n"),
    rest: `{${text.slice(end + 2)}`,
    added: Number(added),
  };
}

/** The length of a part; undefined for one that is empty or lies outside of its blob. */
function lengthWithin(
  size: string | undefined,
  offset: string | undefined,
  length: string | undefined,
): number | undefined {
  const [blob, start, bytes] = [Number(size), Number(offset ?? 0), Number(length ?? size)];
  return bytes > 0 && start + bytes <= blob ? bytes : undefined;
}

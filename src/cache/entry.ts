/**
 * An entry: one store path in the cache, and its line in an index layer.
 *
 *     {"narinfo":"StorePath: …\nURL: …\n","parts":[["sha256:…",12345]],"added":1763920426}
 *
 * `listing`, a part, is the NAR's listing as zstd, and `attached` names files that are served beside it
 * (`attachment.ts`); both may be missing. `narinfo` comes first and is served as it stands. The other fields are kept as one text (`rest`), so that a
 * line is restated byte for byte, with fields of later versions that this one does not know.
 */
import { NixcacheError, preview } from "../errors.ts";
import { formatNarInfo, type NarInfo, parseNarInfo } from "../nar/narinfo.ts";
import { storeHashOf } from "../nar/store-path.ts";
import { type Attachments, decodeAttachments, encodeAttachments } from "./attachment.ts";
import { type JsonObject, parseJsonObject, stringifyJson } from "./json.ts";
import { decodePart, decodeParts, encodePart, encodeParts, type Part } from "./part.ts";

/** Bytes. A line with 10,000 references is under 1 MiB. */
export const MAX_LINE_BYTES = 4 * 1024 * 1024;

export interface Entry {
  readonly info: NarInfo;
  readonly parts: readonly Part[];
  /** zstd of the NAR's listing, the JSON that Nix calls `<hash>.ls`. */
  readonly listing?: Part | undefined;
  readonly attached?: Attachments | undefined;
  /** When the line was made, in seconds since 1970. */
  readonly added: number;
}

/** A line taken apart just far enough to be stored, looked up, and put together again. */
export interface EntryLine {
  readonly storeHash: string;
  /** The last component of the narinfo's URL, by which the NAR is asked for. */
  readonly file: string;
  readonly narinfo: string;
  /** The line's other fields, as a JSON object. */
  readonly rest: string;
  readonly added: number;
}

/** @throws `corrupt` with `where` in front when the entry contradicts itself. */
export function encodeEntry(entry: Entry): EntryLine {
  const rest = {
    parts: encodeParts(entry.parts),
    added: entry.added,
    ...(entry.listing && { listing: encodePart(entry.listing) }),
    ...(entry.attached && { attached: encodeAttachments(entry.attached) }),
  };
  return checkLine(formatNarInfo(entry.info), rest, JSON.stringify(rest), entry.info.storePath);
}

/** The line without its newline. */
export function formatLine(line: Pick<EntryLine, "narinfo" | "rest">): string {
  return `{"narinfo":${JSON.stringify(line.narinfo)},${line.rest.slice(1)}`;
}

/** @throws `corrupt`, naming `where` (such as `index layer sha256:…, line 3`). */
export function parseLine(text: string, where: string): EntryLine {
  const value = parseJsonObject(text, where);
  const { narinfo, ...rest } = value;
  if (typeof narinfo !== "string") {
    throw new NixcacheError("corrupt", `${where}: expected the text field "narinfo"`);
  }
  return checkLine(narinfo, rest, stringifyJson(rest, where), where);
}

/** What a line says beside its narinfo. */
export type EntryFiles = Pick<Entry, "parts" | "listing" | "attached">;

/** The parts named in a line's `rest`. Checked when the line was read, and again: a database may be damaged. */
export function filesOf(rest: string, where: string): EntryFiles {
  return decodeFiles(parseJsonObject(rest, where), where);
}

/** Looked for in the text: most lines have none, and need not be parsed again. */
export function mayHaveAttached({ rest }: Pick<EntryLine, "rest">): boolean {
  return rest.includes('"attached":');
}

/** The parts of an entry's NAR, its listing and its attached files. */
export function allParts(files: EntryFiles): Part[] {
  return [...files.parts, ...filesBeside(files).values()];
}

/** Names the listing among what `filesBeside` gives; the others have paths with a slash. */
export const LISTING = "listing";

/** The compressed files of an entry beside its NAR, by name. */
export function filesBeside({ listing, attached = {} }: EntryFiles): Map<string, Part> {
  const parts = Object.entries(attached).flatMap(([path, file]): [string, Part][] =>
    "part" in file ? [[path, file.part]] : [],
  );
  return new Map(listing === undefined ? parts : [[LISTING, listing], ...parts]);
}

/** The line without some of its files, named as by `filesBeside`, and otherwise byte for byte. */
export function withoutFiles(line: EntryLine, names: ReadonlySet<string>): EntryLine {
  const { listing, attached, ...others } = parseJsonObject(line.rest, line.storeHash);
  const kept = Object.entries(attached ?? {}).filter(([path]) => !names.has(path));
  const rest = {
    ...others,
    ...(listing !== undefined && !names.has(LISTING) && { listing }),
    ...(kept.length > 0 && { attached: Object.fromEntries(kept) }),
  };
  return { ...line, rest: JSON.stringify(rest) };
}

/** The line without some of its signatures, and otherwise byte for byte. */
export function withoutSignatures(line: EntryLine, signatures: ReadonlySet<string>): EntryLine {
  const isKept = (text: string) => !text.startsWith("Sig: ") || !signatures.has(text.slice("Sig: ".length));
  return { ...line, narinfo: line.narinfo.split("\n").filter(isKept).join("\n") };
}

export function entryOf(line: EntryLine): Entry {
  const info = parseNarInfo(line.narinfo, line.storeHash);
  return { info, ...filesOf(line.rest, line.storeHash), added: line.added };
}

function decodeFiles({ parts, listing, attached }: JsonObject, where: string): EntryFiles {
  return {
    parts: decodeParts(parts, where),
    ...(listing !== undefined && { listing: decodePart(listing, `${where}, "listing"`) }),
    ...(attached !== undefined && { attached: decodeAttachments(attached, where) }),
  };
}

function checkLine(
  narinfo: string,
  rest: Record<string, unknown>,
  restText: string,
  where: string,
): EntryLine {
  const info = parseNarInfo(narinfo, where);
  const { parts } = decodeFiles(rest, where);
  const added = rest.added;
  if (!Number.isSafeInteger(added) || (added as number) < 0) {
    throw new NixcacheError(
      "corrupt",
      `${where}: got "added": ${preview(added)}, expected seconds since 1970`,
    );
  }
  let length = 0;
  for (const part of parts) length += part.length;
  if (info.fileSize !== undefined && info.fileSize !== length) {
    throw new NixcacheError(
      "corrupt",
      `${where}: the parts have ${length} bytes, the narinfo says ${info.fileSize}`,
    );
  }
  const slash = info.url.lastIndexOf("/");
  if (info.url.slice(0, slash + 1) !== "nar/" || slash === info.url.length - 1) {
    throw new NixcacheError(
      "corrupt",
      `${where}: got ${preview(`URL: ${info.url}`, 300)}, expected nar/<file>`,
    );
  }
  return {
    storeHash: storeHashOf(info.storePath),
    file: info.url.slice(slash + 1),
    narinfo,
    rest: restText,
    added: added as number,
  };
}

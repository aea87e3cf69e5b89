/**
 * Narinfo: the few lines of text by which a binary cache describes one store path.
 *
 * Nix's own parser takes each name up to the first colon, skips two characters and takes the rest of the
 * line. What that parser dies of is an error here too, so that nothing we accept can break a client; where
 * it would silently misread (a blank line, a missing blank) this one is stricter.
 * https://nix.dev/manual/nix/latest/protocols/binary-cache
 */
import { NixcacheError } from "../errors.ts";
import { formatContentAddress, parseContentAddress } from "./content-address.ts";
import { canonicalSha256, isCanonicalSha256 } from "./hash.ts";
import { isBaseName, STORE_DIR } from "./store-path.ts";

/** The longest narinfo that is read, in UTF-16 units. The longest on cache.nixos.org have some 100 KiB. */
export const MAX_NARINFO_LENGTH = 1024 * 1024;

export interface NarInfo {
  /** `/nix/store/<hash>-<name>` */
  storePath: string;
  /** Where the NAR file is, relative to the cache's URL. */
  url: string;
  /** One of COMPRESSIONS. */
  compression: string;
  /** `sha256:<base32>` of the file behind `url`. Clients never check it. */
  fileHash?: string;
  /** Bytes of the file behind `url`. Clients never check it. */
  fileSize?: number;
  /** `sha256:<base32>` of the unpacked NAR. */
  narHash: string;
  /** Bytes of the unpacked NAR, at least 1. */
  narSize: number;
  /** Base names, ascending, each once. May hold the path itself. */
  references: string[];
  /** Base name of the derivation; absent where it is unknown. */
  deriver?: string;
  /** `<key name>:<base64>`, each once. */
  sigs: string[];
  /** As `formatContentAddress` writes it. */
  ca?: string;
}

/**
 * What some Nix can unpack. The first eight work with every version and are what caches use; the rest come
 * with libarchive. A client from 2.34 on gives up on a narinfo with any other name.
 */
export const COMPRESSIONS: ReadonlySet<string> = new Set([
  ...["none", "xz", "bzip2", "gzip", "zstd", "br", "lz4", "lzip"],
  ...["compress", "grzip", "lrzip", "lzma", "lzop"],
]);

/**
 * Reads a narinfo. Unknown names are passed over; of a name that comes twice the last counts, as in Nix.
 * @param where names the text in errors, such as `narinfo of /nix/store/…`.
 * @throws `corrupt`, saying the line, what it was and what was expected.
 */
export function parseNarInfo(text: string, where = "narinfo", storeDir: string = STORE_DIR): NarInfo {
  if (text.length > MAX_NARINFO_LENGTH) {
    throw new NixcacheError("corrupt", `${where}: got ${text.length} characters, expected at most 1 MiB`);
  }
  let storePath = "";
  let url = "";
  let compression = "";
  let fileHash: string | undefined;
  let fileSize: number | undefined;
  let narHash = "";
  let narSize = 0;
  let references: string[] = [];
  let deriver: string | undefined;
  const sigs: string[] = [];
  let ca: string | undefined;

  let start = 0;
  for (let line = 1; start < text.length; line++) {
    const end = text.indexOf("\n", start);
    if (end < 0) throw refuse(text, start, where, "a newline at the end");
    const colon = text.indexOf(":", start);
    if (colon < 0 || colon >= end) throw refuse(text, start, where, 'a line "Name: value"');
    if (text.charCodeAt(colon + 1) !== 0x20) throw refuse(text, start, where, "a blank after the colon");
    if (text.charCodeAt(end - 1) === 0x0d) throw refuse(text, start, where, "no carriage return at the end");
    const value = text.slice(colon + 2, end);
    switch (text.slice(start, colon)) {
      case "StorePath":
        if (value[storeDir.length] !== "/" || !value.startsWith(storeDir)) {
          throw refuse(text, start, where, `a path in ${storeDir}`);
        }
        if (!isBaseName(value.slice(storeDir.length + 1))) throw refuse(text, start, where, "a store path");
        storePath = value;
        break;
      case "URL":
        url = value;
        break;
      case "Compression":
        if (value !== "" && !COMPRESSIONS.has(value)) {
          throw refuse(text, start, where, `one of ${[...COMPRESSIONS].join(", ")}`);
        }
        compression = value;
        break;
      case "FileHash":
        fileHash = isCanonicalSha256(value) ? value : canonicalSha256(value, `${where} line ${line}`);
        break;
      case "FileSize":
        fileSize = parseSize(value);
        if (fileSize < 0) throw refuse(text, start, where, "a size in bytes");
        break;
      case "NarHash":
        narHash = isCanonicalSha256(value) ? value : canonicalSha256(value, `${where} line ${line}`);
        break;
      case "NarSize":
        narSize = parseSize(value);
        if (narSize < 0) throw refuse(text, start, where, "a size in bytes");
        if (narSize === 0) throw refuse(text, start, where, "at least one byte");
        break;
      case "References":
        if (references.length > 0) throw refuse(text, start, where, "References only once");
        references = parseReferences(value);
        if (!references.every(isBaseName)) {
          throw refuse(text, start, where, "store path base names separated by blanks");
        }
        break;
      case "Deriver":
        if (value === "unknown-deriver") {
          deriver = undefined;
          break;
        }
        if (!isBaseName(value)) throw refuse(text, start, where, "the base name of a store path");
        deriver = value;
        break;
      case "Sig":
        if (value.indexOf(":") < 1) throw refuse(text, start, where, "a signature <key name>:<base64>");
        sigs.push(value);
        break;
      case "CA":
        if (ca !== undefined) throw refuse(text, start, where, "CA only once");
        if (value !== "") ca = formatContentAddress(parseContentAddress(value, `${where} line ${line}`));
        break;
    }
    start = end + 1;
  }

  if (storePath === "") throw missing(where, "StorePath");
  if (url === "") throw missing(where, "URL");
  if (narHash === "") throw missing(where, "NarHash");
  if (narSize === 0) throw missing(where, "NarSize");
  const info: NarInfo = {
    storePath,
    url,
    compression: compression === "" ? "bzip2" : compression,
    narHash,
    narSize,
    references,
    sigs: sigs.length > 1 ? [...new Set(sigs)] : sigs,
  };
  if (fileHash !== undefined) info.fileHash = fileHash;
  if (fileSize !== undefined) info.fileSize = fileSize;
  if (deriver !== undefined) info.deriver = deriver;
  if (ca !== undefined) info.ca = ca;
  return info;
}

/** The text in Nix's order. The fields are taken as they are: they come from `parseNarInfo` or from Nix. */
export function formatNarInfo(info: Readonly<NarInfo>): string {
  let text = `StorePath: ${info.storePath}\nURL: ${info.url}\nCompression: ${info.compression}\n`;
  if (info.fileHash !== undefined) text += `FileHash: ${info.fileHash}\n`;
  if (info.fileSize !== undefined) text += `FileSize: ${info.fileSize}\n`;
  text += `NarHash: ${info.narHash}\nNarSize: ${info.narSize}\n`;
  // Without the blank a client swallows the next line, so it is there even when nothing follows.
  text += `References: ${ascending(info.references).join(" ")}\n`;
  if (info.deriver !== undefined) text += `Deriver: ${info.deriver}\n`;
  for (const sig of info.sigs) text += `Sig: ${sig}\n`;
  if (info.ca !== undefined) text += `CA: ${info.ca}\n`;
  return text;
}

/** References in the order of Nix, each once; the array itself when it is so already, as nearly always. */
export function ascending(references: readonly string[]): readonly string[] {
  for (let index = 1; index < references.length; index++) {
    // Base names are ASCII: the order of UTF-16 units is the order of bytes.
    if ((references[index - 1] ?? "") >= (references[index] ?? "")) return [...new Set(references)].sort();
  }
  return references;
}

function parseReferences(value: string): string[] {
  if (value === "") return [];
  const references = value.split(" ");
  return [
    ...ascending(references.includes("") ? references.filter((reference) => reference !== "") : references),
  ];
}

/** A size in decimal digits, or -1. Beyond 2^53 bytes a number would be rounded; no file is that long. */
function parseSize(value: string): number {
  if (value.length === 0 || value.length > 16) return -1;
  let size = 0;
  for (let index = 0; index < value.length; index++) {
    const digit = value.charCodeAt(index) - 0x30;
    if (digit < 0 || digit > 9) return -1;
    size = size * 10 + digit;
  }
  return Number.isSafeInteger(size) ? size : -1;
}

function atLine(text: string, start: number, where: string): string {
  let line = 1;
  for (let at = text.indexOf("\n"); at >= 0 && at < start; at = text.indexOf("\n", at + 1)) line++;
  return `${where} line ${line}`;
}

function refuse(text: string, start: number, where: string, expected: string): NixcacheError {
  const end = text.indexOf("\n", start);
  const line = text.slice(start, end < 0 ? undefined : end);
  const shown = line.length > 300 ? `${line.slice(0, 300)}…` : line;
  const message = `${atLine(text, start, where)}: got ${JSON.stringify(shown)}, expected ${expected}`;
  return new NixcacheError("corrupt", message);
}

function missing(where: string, name: string): NixcacheError {
  return new NixcacheError(
    "corrupt",
    `${where}: got no ${name}, expected StorePath, URL, NarHash and NarSize`,
  );
}

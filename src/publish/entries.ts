/** The lines of a generation: new entries signed, known ones restated. */
import { type Attachments, isAttachedPath, MAX_ATTACHMENTS, MAX_TEXT_BYTES } from "../cache/attachment.ts";
import { type EntryLine, encodeEntry, entryOf } from "../cache/entry.ts";
import type { NarInfo } from "../nar/narinfo.ts";
import { mergeRealisation, type Realisation, realisationPath, signRealisation } from "../nar/realisation.ts";
import { isSignature, signNarInfo } from "../nar/signature.ts";
import type { SecretKey } from "../nar/signing-key.ts";
import type { PathInfo } from "../nix/store.ts";
import type { NarFile } from "./upload.ts";

/**
 * @param realisations those of the path, by which clients find it
 * @param now seconds since 1970
 * @param replaced the line of another build, which this one takes the place of
 */
export function newLine(
  path: PathInfo,
  file: NarFile,
  realisations: readonly Realisation[],
  key: SecretKey | undefined,
  now: number,
  replaced?: EntryLine,
): EntryLine {
  const deriver = path.deriver === undefined ? undefined : baseName(path.deriver);
  const info: NarInfo = {
    storePath: path.path,
    url: `nar/${file.fileHash.slice("sha256:".length)}.nar.zst`,
    compression: "zstd",
    fileHash: file.fileHash,
    fileSize: file.fileSize,
    narHash: path.narHash,
    narSize: path.narSize,
    references: path.references.map(baseName),
    ...(deriver === undefined ? {} : { deriver }),
    // An older Nix keeps what is none; for that Nix from 2.34 on gives up on the path.
    sigs: path.sigs.filter(isSignature),
    ...(path.ca === undefined ? {} : { ca: path.ca }),
  };
  const log = deriver === undefined ? undefined : file.logs.get(deriver);
  const attached = log && deriver !== undefined ? { [logPath(deriver)]: { part: log } } : undefined;
  return encodeEntry({
    info: signed(info, key),
    parts: file.parts,
    listing: file.listing,
    attached: withRealisations(attached, realisations, key),
    added: addedAfter(replaced, now),
  });
}

/**
 * The line as it is, byte for byte, unless it lacks this key's signature, or realisations: then a new one in its
 * place.
 */
export function restatedLine(
  line: EntryLine,
  realisations: readonly Realisation[],
  key: SecretKey | undefined,
  now: number,
): EntryLine {
  const entry = entryOf(line);
  const info = signed(entry.info, key);
  const attached = withRealisations(entry.attached, realisations, key);
  if (info === entry.info && attached === entry.attached) return line;
  return encodeEntry({ ...entry, info, attached, added: addedAfter(line, now) });
}

/** Lines of `after` that have a signature, where the path had none in `before`. */
export function countSignedNow(before: Iterable<EntryLine>, after: readonly EntryLine[]): number {
  const isSigned = (line: EntryLine) => entryOf(line).info.sigs.length > 0;
  const unsigned = new Set([...before].filter((line) => !isSigned(line)).map(({ storeHash }) => storeHash));
  return after.filter((line) => unsigned.has(line.storeHash) && isSigned(line)).length;
}

/** Later than the line that it replaces, whatever the clocks: the later one is shown. */
function addedAfter(replaced: EntryLine | undefined, now: number): number {
  return replaced === undefined ? now : Math.max(now, replaced.added + 1);
}

/** Where a binary cache has the build log of a derivation, by its base name. */
export function logPath(derivation: string): string {
  return `log/${derivation}`;
}

/**
 * With the realisations that are not among the files yet, or lack a signature there; the same object when there
 * are none such. As many as an entry may have.
 */
function withRealisations(
  files: Attachments | undefined,
  realisations: readonly Realisation[],
  key: SecretKey | undefined,
): Attachments | undefined {
  let result = files;
  for (const unsigned of realisations) {
    const path = realisationPath(unsigned);
    const realisation = key ? signRealisation(unsigned, key) : unsigned;
    const known = result?.[path];
    const text = mergeRealisation(realisation, known && "text" in known ? known.text : undefined);
    if (known && "text" in known && known.text === text) continue;
    if (!isAttachedPath(path) || Buffer.byteLength(text) > MAX_TEXT_BYTES) continue;
    if (known === undefined && Object.keys(result ?? {}).length >= MAX_ATTACHMENTS) continue;
    result = { ...result, [path]: { text } };
  }
  return result;
}

function signed(info: NarInfo, key: SecretKey | undefined): NarInfo {
  if (key === undefined) return info;
  const signature = signNarInfo(info, key);
  if (info.sigs.includes(signature)) return info;
  // Clients give up on a path for what is none, even beside a good one.
  return { ...info, sigs: [...info.sigs.filter(isSignature), signature] };
}

export function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

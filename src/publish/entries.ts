/** The lines of a generation: new entries signed, known ones restated. */
import { type EntryLine, encodeEntry, entryOf } from "../cache/entry.ts";
import type { NarInfo } from "../nar/narinfo.ts";
import { signNarInfo } from "../nar/signature.ts";
import type { SecretKey } from "../nar/signing-key.ts";
import type { PathInfo } from "../nix/store.ts";
import type { NarFile } from "./upload.ts";

/** @param now seconds since 1970 */
export function newLine(path: PathInfo, file: NarFile, key: SecretKey | undefined, now: number): EntryLine {
  const info: NarInfo = {
    storePath: path.path,
    url: `nar/${file.fileHash.slice("sha256:".length)}.nar.zst`,
    compression: "zstd",
    fileHash: file.fileHash,
    fileSize: file.fileSize,
    narHash: path.narHash,
    narSize: path.narSize,
    references: path.references.map(baseName),
    ...(path.deriver === undefined ? {} : { deriver: baseName(path.deriver) }),
    sigs: [...path.sigs],
    ...(path.ca === undefined ? {} : { ca: path.ca }),
  };
  return encodeEntry({ info: signed(info, key), parts: file.parts, added: now });
}

/** The line as it is, byte for byte, unless it lacks this key's signature: then a new one beside it. */
export function restatedLine(line: EntryLine, key: SecretKey | undefined, now: number): EntryLine {
  const entry = entryOf(line);
  const info = signed(entry.info, key);
  // Later than the line that it replaces, whatever the clocks: the later one is shown.
  return info === entry.info ? line : encodeEntry({ ...entry, info, added: Math.max(now, line.added + 1) });
}

function signed(info: NarInfo, key: SecretKey | undefined): NarInfo {
  if (key === undefined) return info;
  const signature = signNarInfo(info, key);
  return info.sigs.includes(signature) ? info : { ...info, sigs: [...info.sigs, signature] };
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

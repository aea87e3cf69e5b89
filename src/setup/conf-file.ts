/** A nix.conf as a file: read, edited and replaced as a whole, or left alone. */
import { NixcacheError } from "../errors.ts";
import { STORE_DIR } from "../nar/store-path.ts";
import { type ExistingFile, readExisting, removeFile, replaceFile } from "../system/replace-file.ts";
import { addLines, type ConfLines, confLines, removeLines, said } from "./nix-conf.ts";

/** NixOS, nix-darwin and home-manager make the file anew, in the store, out of their own configuration. */
export class GeneratedFile extends NixcacheError {
  constructor(file: string, path: string) {
    super("filesystem", `${file} is ${path}, which is generated and cannot be changed`, {
      hint: "Put the lines that `nixcache use --mode nixos` prints into your own configuration.",
    });
  }
}

/**
 * @param storeDir where generated files are
 * @returns the lines that were written, undefined when the file says so already. @throws GeneratedFile; `filesystem`
 */
export function addToConf(
  file: string,
  wanted: ConfLines,
  storeDir = STORE_DIR,
): readonly string[] | undefined {
  const before = readExisting(file);
  const text = before?.bytes.toString("latin1");
  const after = addLines(text, wanted);
  if (after === text) return undefined;
  refuseGenerated(file, before, storeDir);
  replaceFile(file, before, Buffer.from(after, "latin1"));
  return confLines(wanted, said(text ?? ""));
}

export interface RemovedFromConf {
  readonly changed: boolean;
  /** Lines that name the cache beside others. */
  readonly left: readonly number[];
}

/** @throws GeneratedFile; `filesystem` */
export function removeFromConf(file: string, wanted: ConfLines, storeDir = STORE_DIR): RemovedFromConf {
  const before = readExisting(file);
  if (before === undefined) return { changed: false, left: [] };
  const text = before.bytes.toString("latin1");
  const { text: after, left } = removeLines(text, wanted);
  if (after === text) return { changed: false, left };
  refuseGenerated(file, before, storeDir);
  if (after === undefined) removeFile(before.path);
  else replaceFile(file, before, Buffer.from(after, "latin1"));
  return { changed: true, left };
}

function refuseGenerated(file: string, before: ExistingFile | undefined, storeDir: string): void {
  if (before?.path.startsWith(`${storeDir}/`)) throw new GeneratedFile(file, before.path);
}

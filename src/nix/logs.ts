/**
 * Build logs as Nix keeps them: `drvs/<2 characters>/<rest>.drv` below its log folder, with `.bz2` at the end
 * unless the setting `compress-build-log` is off; old ones not in folders of two characters.
 *
 * Read here and not by `nix-store --read-log`, which is a process for each derivation and bounds nothing.
 */
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { messageOf, NixcacheError, systemCode } from "../errors.ts";
import { bunzip } from "./bunzip.ts";

/** Bytes of a log, as it is and unpacked: it is held in memory. Longer ones are not read. */
export const MAX_LOG_BYTES = 16 * 1024 * 1024;

/**
 * The log of a derivation, by its base name; undefined when there is none, or when it is too long.
 * @throws `nix-store` when it cannot be read.
 */
export function readBuildLog(folder: string, derivation: string): Uint8Array | undefined {
  const names = [join(derivation.slice(0, 2), derivation.slice(2)), derivation];
  for (const name of names) {
    const file = join(folder, "drvs", name);
    const plain = readBounded(file);
    if (plain !== undefined) return plain === "too long" ? undefined : plain;
    const packed = readBounded(`${file}.bz2`);
    if (packed === "too long") return undefined;
    if (packed !== undefined) return unpack(packed, `${file}.bz2`);
  }
  return undefined;
}

/** Synchronously, as there are many and most are short: a trip to another thread costs ten times the read. */
function readBounded(file: string): Uint8Array | "too long" | undefined {
  try {
    const size = statSync(file, { throwIfNoEntry: false })?.size;
    if (size === undefined) return undefined;
    return size > MAX_LOG_BYTES ? "too long" : readFileSync(file);
  } catch (error) {
    if (systemCode(error) === "ENOENT" || systemCode(error) === "ENOTDIR") return undefined;
    throw unreadable(file, error);
  }
}

function unpack(packed: Uint8Array, file: string): Uint8Array | undefined {
  try {
    return bunzip(packed, MAX_LOG_BYTES);
  } catch (error) {
    throw unreadable(file, error);
  }
}

function unreadable(file: string, cause: unknown): NixcacheError {
  return new NixcacheError("nix-store", `the build log ${file} cannot be read: ${messageOf(cause)}`, {
    cause,
  });
}

/**
 * Paths of which the cache has another build that is signed. Clients take that one, and what was published with it, so
 * it stays; what this publish has built with its own is left out.
 */
import { type EntryLine, entryOf } from "../cache/entry.ts";
import type { IndexReader } from "../cache/index-reader.ts";
import { isSignature, signerOf } from "../nar/signature.ts";
import { storeHashOf } from "../nar/store-path.ts";
import { closureLines } from "../protocol/restate.ts";
import type { LeftOut } from "./complete.ts";

/** Names of keys in one reason. */
const MAX_NAMES = 3;

/** Why these paths are left out, by path. */
export function keptReasons(kept: ReadonlyMap<string, EntryLine>): Map<string, string> {
  return new Map([...kept].map(([path, line]) => [path, keptReason(line)]));
}

function keptReason(line: EntryLine): string {
  const { sigs, narHash } = entryOf(line).info;
  const names = [...new Set(sigs.filter(isSignature).map(signerOf))].slice(0, MAX_NAMES);
  const why = names.length === 0 ? "content-addressed" : `signed by ${names.join(", ")}`;
  return `the cache keeps another build of it (${narHash}), ${why}; --replace-signed publishes this one`;
}

/**
 * The cache's own lines for what is left out, as they stand, with those that they lead to. Else they would end with the
 * generation that this one succeeds, and with them what people use.
 * @param stated the lines that this generation has already
 */
export function keptLines(
  view: IndexReader,
  leftOut: readonly LeftOut[],
  stated: readonly EntryLine[],
): EntryLine[] {
  const known = new Set(stated.map(({ storeHash }) => storeHash));
  const { lines } = closureLines(
    view,
    leftOut.map(({ path }) => storeHashOf(path)),
  );
  return lines.filter(({ storeHash }) => !known.has(storeHash));
}

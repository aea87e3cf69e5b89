/**
 * A source: where answers of our own come from. A cache is one, by its local index.
 */
import type { Attachment } from "../cache/attachment.ts";
import type { NarLocation } from "../cache/index-reader.ts";
import type { Part } from "../cache/part.ts";
import type { BlobReader } from "../protocol/blob-range.ts";

export interface Source {
  readonly store: BlobReader;
  readonly view: SourceView;
}

export interface SourceView {
  /** The narinfo of a store hash. */
  narinfo(storeHash: string): string | undefined;
  /** Where a NAR's bytes are, by the last component of its URL. */
  nar(file: string): NarLocation | undefined;
  /** Where the listing of a store hash is, compressed with zstd. */
  listing(storeHash: string): Part | undefined;
  /** A file beside the narinfos, by its path. */
  attached(path: string): Attachment | undefined;
}

/**
 * The source that answers for a store path: the first one that has it signed or content-addressed, else the first one
 * that has it. Else a build that nobody takes would hide one that clients trust.
 */
export function sourceOf<Of extends Source>(
  storeHash: string,
  sources: readonly Of[],
): { readonly source: Of; readonly narinfo: string } | undefined {
  let first: { source: Of; narinfo: string } | undefined;
  for (const source of sources) {
    const narinfo = source.view.narinfo(storeHash);
    if (narinfo === undefined) continue;
    if (sources.length === 1 || narinfo.includes("\nSig: ") || narinfo.includes("\nCA: "))
      return { source, narinfo };
    first ??= { source, narinfo };
  }
  return first;
}

/**
 * A source: where answers of our own come from. A cache is one, by its local index.
 */
import type { NarLocation } from "../cache/index-reader.ts";
import type { BlobReader } from "../protocol/nar-file.ts";

export interface Source {
  readonly store: BlobReader;
  readonly view: SourceView;
}

export interface SourceView {
  /** The narinfo of a store hash. */
  narinfo(storeHash: string): string | undefined;
  /** Where a NAR's bytes are, by the last component of its URL. */
  nar(file: string): NarLocation | undefined;
}

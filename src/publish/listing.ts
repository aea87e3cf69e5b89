/** The listing of a NAR, made on the side while the NAR is dumped. */
import { MAX_NAR_DEPTH } from "../nar/archive.ts";
import { ListingBuilder } from "../nar/listing.ts";
import type { NarFile, NarVisitor } from "../nar/reader.ts";

/** Characters of JSON; some 200,000 files. A longer listing is left out: nobody browses that. */
const MAX_LISTING_LENGTH = 16 * 1024 * 1024;

/** Told of the tree that is dumped. One that is deeper than readers of NARs take gets no listing. */
export class NarListing implements NarVisitor {
  readonly #builder = new ListingBuilder(MAX_LISTING_LENGTH);
  #depth = 0;
  #isWhole = false;
  #isTooDeep = false;

  /** The listing as Nix writes it, once the whole NAR has been dumped. */
  finish(): string | undefined {
    return this.#isWhole && !this.#isTooDeep ? this.#builder.text : undefined;
  }

  directory(name: Uint8Array | undefined): void {
    if (this.#depth >= MAX_NAR_DEPTH) this.#isTooDeep = true;
    this.#depth++;
    this.#builder.directory(name);
  }

  endDirectory(): void {
    this.#depth--;
    this.#builder.endDirectory();
    this.#nodeEnded();
  }

  regular(name: Uint8Array | undefined, file: NarFile): void {
    this.#builder.regular(name, file);
    this.#nodeEnded();
  }

  symlink(name: Uint8Array | undefined, target: Uint8Array): void {
    this.#builder.symlink(name, target);
    this.#nodeEnded();
  }

  #nodeEnded(): void {
    if (this.#depth === 0) this.#isWhole = true;
  }
}

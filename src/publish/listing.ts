/** The listing of a NAR, made on the side while the NAR is dumped. */
import { ListingBuilder } from "../nar/listing.ts";
import { NarReader } from "../nar/reader.ts";

/** Characters of JSON; some 200,000 files. A longer listing is left out: nobody browses that. */
const MAX_LISTING_LENGTH = 16 * 1024 * 1024;

export class NarListing {
  readonly #builder = new ListingBuilder(MAX_LISTING_LENGTH);
  #reader: NarReader | undefined = new NarReader(this.#builder);

  /** Takes the next bytes of the NAR. One that a strict reader refuses, such as a very deep tree, gets no listing. */
  write(chunk: Uint8Array): void {
    this.#attempt((reader) => reader.write(chunk));
  }

  /** The listing as Nix writes it, once the whole NAR has been taken. */
  finish(): string | undefined {
    this.#attempt((reader) => reader.end());
    return this.#reader && this.#builder.text;
  }

  #attempt(read: (reader: NarReader) => void): void {
    try {
      if (this.#reader) read(this.#reader);
    } catch {
      this.#reader = undefined;
    }
  }
}

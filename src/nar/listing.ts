/**
 * The listing of a NAR: the `.ls` file by which `nix store ls` and nix-index look into a store path without
 * its NAR. https://nix.dev/manual/nix/latest/command-ref/new-cli/nix3-store-ls
 *
 *   {"version":1,"root":{"type":"directory","entries":{"a":{"type":"regular","size":3,"narOffset":400}}}}
 */
import type { NarFile, NarVisitor } from "./reader.ts";

/**
 * Writes the listing while a NarReader runs, in the order of the NAR, with the keys in that of Nix 2.8.
 *
 * JSON cannot hold names that are not UTF-8: a path that has one gets no listing.
 */
export class ListingBuilder implements NarVisitor {
  readonly #maxLength: number;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  #text = '{"version":1,"root":';
  /** For each open directory whether it has an entry yet. */
  readonly #open: boolean[] = [];
  #left = false;

  /** @param maxLength the longest listing, in UTF-16 units: it is held in memory. */
  constructor(maxLength = Number.POSITIVE_INFINITY) {
    this.#maxLength = maxLength;
  }

  /** The JSON, once the NAR has been read; undefined when it is too long, or something in it is not UTF-8. */
  get text(): string | undefined {
    return this.#left ? undefined : `${this.#text}}`;
  }

  directory(name: Uint8Array | undefined): void {
    this.#add(name, '{"type":"directory","entries":{');
    this.#open.push(false);
  }

  endDirectory(): void {
    this.#open.pop();
    if (!this.#left) this.#text += "}}";
  }

  regular(name: Uint8Array | undefined, { executable, size, offset }: NarFile): void {
    const flag = executable ? ',"executable":true' : "";
    this.#add(name, `{"type":"regular","size":${size}${flag},"narOffset":${offset}}`);
  }

  symlink(name: Uint8Array | undefined, target: Uint8Array): void {
    this.#add(name, `{"type":"symlink","target":${this.#quote(target)}}`);
  }

  #add(name: Uint8Array | undefined, node: string): void {
    if (this.#left) return;
    const hasEntry = this.#open.at(-1);
    const comma = hasEntry ? "," : "";
    if (hasEntry === false) this.#open[this.#open.length - 1] = true;
    this.#text += name === undefined ? node : `${comma}${this.#quote(name)}:${node}`;
    if (this.#text.length > this.#maxLength) this.#leave();
  }

  #quote(bytes: Uint8Array): string {
    try {
      return JSON.stringify(this.#decoder.decode(bytes));
    } catch {
      this.#leave();
      return "";
    }
  }

  #leave(): void {
    this.#left = true;
    this.#text = "";
  }
}

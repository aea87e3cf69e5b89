/**
 * The listing of a NAR: the `.ls` file by which `nix store ls` and nix-index look into a store path without
 * its NAR. https://nix.dev/manual/nix/latest/command-ref/new-cli/nix3-store-ls
 *
 *   {"version":1,"root":{"type":"directory","entries":{"a":{"type":"regular","size":3,"narOffset":400}}}}
 */
import type { NarFile, NarVisitor } from "./reader.ts";

export type ListingNode =
  | {
      readonly type: "regular";
      /** Bytes. */
      readonly size: number;
      readonly executable: boolean;
      /** Where the contents start, in bytes from the start of the NAR. */
      readonly narOffset: number;
    }
  | { readonly type: "symlink"; readonly target: string }
  /** A Map, as an object would reorder names that look like numbers, and lose `__proto__`. */
  | { readonly type: "directory"; readonly entries: ReadonlyMap<string, ListingNode> };

/**
 * Builds the listing while a NarReader runs. It holds all names of the NAR in memory.
 *
 * JSON cannot hold names that are not UTF-8: a path that has one gets no listing, `root` is then undefined.
 */
export class ListingBuilder implements NarVisitor {
  readonly #open: Map<string, ListingNode>[] = [];
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  #root: ListingNode | undefined;
  #unrepresentable = false;

  /** The listing, once the NAR has been read; undefined when a name or a target in it is not UTF-8. */
  get root(): ListingNode | undefined {
    return this.#unrepresentable ? undefined : this.#root;
  }

  directory(name: Uint8Array | undefined): void {
    const entries = new Map<string, ListingNode>();
    this.#add(name, { type: "directory", entries });
    this.#open.push(entries);
  }

  endDirectory(): void {
    this.#open.pop();
  }

  regular(name: Uint8Array | undefined, file: NarFile): void {
    const { executable, size, offset } = file;
    this.#add(name, { type: "regular", size, executable, narOffset: offset });
  }

  symlink(name: Uint8Array | undefined, target: Uint8Array): void {
    this.#add(name, { type: "symlink", target: this.#text(target) });
  }

  #add(name: Uint8Array | undefined, node: ListingNode): void {
    if (name === undefined) this.#root = node;
    else this.#open.at(-1)?.set(this.#text(name), node);
  }

  #text(bytes: Uint8Array): string {
    try {
      return this.#decoder.decode(bytes);
    } catch {
      this.#unrepresentable = true;
      return "";
    }
  }
}

/** The JSON text, with keys in the order of Nix 2.8. */
export function formatListing(root: ListingNode): string {
  return `{"version":1,"root":${formatNode(root)}}`;
}

function formatNode(node: ListingNode): string {
  switch (node.type) {
    case "regular": {
      const executable = node.executable ? ',"executable":true' : "";
      return `{"type":"regular","size":${node.size}${executable},"narOffset":${node.narOffset}}`;
    }
    case "symlink":
      return `{"type":"symlink","target":${JSON.stringify(node.target)}}`;
    case "directory": {
      const entries = [...node.entries].map(
        ([name, child]) => `${JSON.stringify(name)}:${formatNode(child)}`,
      );
      return `{"type":"directory","entries":{${entries.join(",")}}}`;
    }
  }
}

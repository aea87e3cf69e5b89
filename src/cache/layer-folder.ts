/** The files of the index layers of one local index. Each is open once, however many views have it. */
import { readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { systemCode } from "../errors.ts";
import { type Digest, digestHex } from "../oci/digest.ts";
import { openOwnFolder, removeOwnFile } from "../system/own-folder.ts";
import type { EntryLine } from "./entry.ts";
import { isLayerName } from "./index-files.ts";
import { LayerFile } from "./layer-file.ts";
import { LayerWriter } from "./layer-writer.ts";

export class LayerFolder {
  readonly #path: string;
  readonly #open = new Map<Digest, LayerFile>();

  constructor(path: string) {
    this.#path = path;
  }

  /** For the caller to release. @throws `corrupt` for a damaged one; what the file system says, such as ENOENT */
  open(digest: Digest): LayerFile {
    const known = this.#open.get(digest);
    if (known !== undefined) return known.retain();
    return this.#keep(LayerFile.open(digest, this.#file(digest), this.#closed));
  }

  /** Begins a file. The caller finishes or aborts it. */
  write(digest: Digest, attached: (line: EntryLine) => void): LayerWriter {
    this.#check();
    return new LayerWriter({ digest, path: this.#file(digest), attached, closed: this.#closed });
  }

  /** The finished file, for the caller to release. */
  finish(writer: LayerWriter): LayerFile {
    return this.#keep(writer.finish());
  }

  /** Removes every layer's file that is not of these: views that have one open keep it. */
  sweep(layers: Iterable<Digest>): void {
    this.#check();
    const keep = new Set(Array.from(layers, digestHex));
    for (const name of this.#names()) {
      if (isLayerName(name) && !keep.has(name)) removeOwnFile(join(this.#path, name));
    }
  }

  #check(): void {
    openOwnFolder(dirname(this.#path), basename(this.#path));
  }

  #names(): string[] {
    try {
      return readdirSync(this.#path);
    } catch (error) {
      if (systemCode(error) === "ENOENT") return [];
      throw error;
    }
  }

  #file(digest: Digest): string {
    return join(this.#path, digestHex(digest));
  }

  #keep(file: LayerFile): LayerFile {
    this.#open.set(file.digest, file);
    return file;
  }

  readonly #closed = (file: LayerFile): void => {
    if (this.#open.get(file.digest) === file) this.#open.delete(file.digest);
  };
}

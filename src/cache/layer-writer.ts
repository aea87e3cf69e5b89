/** Writes an index layer's file (`layer-file.ts`): from the layer's text, or entry by entry. */
import { closeSync, openSync, readSync, renameSync, rmSync, write, writeSync } from "node:fs";
import type { Digest } from "../oci/digest.ts";
import { removeOwnFile } from "../system/own-folder.ts";
import { giveBack } from "../zstd-frames.ts";
import { type EntryLine, formatLine, mayHaveAttached, parseLine } from "./entry.ts";
import type { BrokenLine, LayerHeader } from "./index-layer.ts";
import { LayerFile } from "./layer-file.ts";
import { HASH_END, hashInLine, LayerScanner } from "./layer-scan.ts";
import { encodeTable, fileKey, hashKey, TableBuilder } from "./layer-table.ts";

/** Text of entries that is written at once, in UTF-16 units. */
const BUFFERED = 1024 * 1024;

export interface WriteOptions {
  /** Of the layer's blob. */
  readonly digest: Digest;
  readonly path: string;
  /** Given each entry with attached files. */
  readonly attached: (line: EntryLine) => void;
  readonly closed: (file: LayerFile) => void;
}

export interface LayerText {
  readonly header: LayerHeader;
  /** The first line that is no entry. Such lines are passed over. */
  readonly broken: BrokenLine | undefined;
}

export class LayerWriter {
  readonly #options: WriteOptions;
  readonly #temporary: string;
  readonly #fd: number;
  readonly #table = new TableBuilder();
  #text = "";
  #bytes = 0;
  /** Lines for one path: a segment has one, a root layer as many as it covers generations. */
  #mostForPath = 1;

  /** What it writes has another name until it is whole. @throws what the file system says */
  constructor(options: WriteOptions) {
    this.#options = options;
    this.#temporary = `${options.path}.part`;
    // Of a process that was killed: one writes at a time.
    removeOwnFile(this.#temporary);
    this.#fd = openSync(this.#temporary, "wx+", 0o600);
  }

  /**
   * Takes the text of a layer as it comes.
   * @param chunks each with a buffer of its own, which is given back
   * @throws `corrupt`, with the line, for anything that is not an index layer
   */
  async readText(chunks: AsyncIterable<Uint8Array>, where: string): Promise<LayerText> {
    const scanner = new LayerScanner(where, this.#table, this.#options.attached);
    let written: Promise<void> = Promise.resolve();
    try {
      for await (const chunk of chunks) {
        // On another thread, while this one scans and what comes next is unpacked.
        const before = written;
        written = this.#writeAll(chunk);
        written.catch(() => {});
        scanner.push(chunk);
        await before;
      }
    } finally {
      await written;
    }
    const header = scanner.end();
    if (header.kind === "root") this.#mostForPath = Math.max(1, header.covers.length);
    return { header, broken: scanner.broken };
  }

  add(line: EntryLine): void {
    const text = formatLine(line);
    const bytes = Buffer.byteLength(text);
    this.#table.add(hashKey(line.storeHash), this.#bytes, bytes, fileKey(line.file));
    if (mayHaveAttached(line)) this.#options.attached(line);
    this.#text += `${text}\n`;
    this.#bytes += bytes + 1;
    if (this.#text.length >= BUFFERED) this.#flush();
  }

  /** Gives the file its name. @returns it, open */
  finish(): LayerFile {
    this.#flush();
    const table = this.#table.finish((offset) => this.#hashAt(offset), this.#mostForPath);
    const textBytes = Math.ceil(this.#bytes / 8) * 8;
    writeAllNow(this.#fd, new Uint8Array(textBytes - this.#bytes), this.#bytes);
    writeAllNow(this.#fd, encodeTable(table, textBytes), textBytes);
    renameSync(this.#temporary, this.#options.path);
    const { digest, path, closed } = this.#options;
    return new LayerFile({ digest, path, fd: this.#fd, table, textBytes, closed });
  }

  abort(): void {
    closeSync(this.#fd);
    rmSync(this.#temporary, { force: true });
  }

  #flush(): void {
    const bytes = Buffer.from(this.#text);
    this.#text = "";
    writeAllNow(this.#fd, bytes, this.#bytes - bytes.length);
  }

  async #writeAll(chunk: Uint8Array): Promise<void> {
    const from = this.#bytes;
    this.#bytes += chunk.length;
    for (let done = 0; done < chunk.length; ) {
      done += await writeLater(this.#fd, chunk.subarray(done), from + done);
    }
    giveBack(chunk);
  }

  /** The store hash of the line at an offset. */
  #hashAt(offset: number): string {
    const start = Buffer.alloc(HASH_END);
    readSync(this.#fd, start, 0, start.length, offset);
    return hashInLine(start.toString("latin1")) ?? parseLine(this.#lineAt(offset), this.#temporary).storeHash;
  }

  #lineAt(offset: number): string {
    for (let size = 4096; ; size *= 4) {
      const bytes = Buffer.alloc(size);
      const text = bytes.subarray(0, readSync(this.#fd, bytes, 0, size, offset));
      const end = text.indexOf(10);
      if (end !== -1 || text.length < size) return text.toString("utf8", 0, end === -1 ? text.length : end);
    }
  }
}

/** On another thread. @returns how many bytes */
function writeLater(fd: number, bytes: Uint8Array, offset: number): Promise<number> {
  return new Promise((resolve, reject) => {
    write(fd, bytes, 0, bytes.length, offset, (error, written) => (error ? reject(error) : resolve(written)));
  });
}

function writeAllNow(fd: number, bytes: Uint8Array, offset: number): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(fd, bytes, done, bytes.length - done, offset + done);
  }
}

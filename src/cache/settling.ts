/**
 * Forces files of layers to disk, some time after they were written: first come those who wait for what they say.
 */
import { SQLiteError } from "bun:sqlite";
import { NixcacheError, systemCode } from "../errors.ts";
import type { LayerFile } from "./layer-file.ts";

const AFTER_MS = 500;

export class Settling {
  readonly #mark: (files: readonly LayerFile[]) => boolean;
  #files: LayerFile[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isClosed = false;

  /** @param mark notes that files are on disk; false when that is not possible now */
  constructor(mark: (files: readonly LayerFile[]) => boolean) {
    this.#mark = mark;
  }

  add(files: readonly LayerFile[]): void {
    this.#files.push(...files.map((file) => file.retain()));
    this.#later();
  }

  /** Forces to disk what is left, now. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    const files = this.#files.splice(0);
    try {
      for (const file of files) file.syncNow();
      if (files.length > 0) this.#mark(files);
    } catch (error) {
      // The next update says so: a file that could not be forced to disk is gone.
      if (!isOfDisk(error)) throw error;
    } finally {
      for (const file of files) file.release();
    }
  }

  #later(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      void this.#settle();
    }, AFTER_MS).unref();
  }

  async #settle(): Promise<void> {
    const files = this.#files.splice(0);
    try {
      for (const file of files) await file.sync();
      // Whoever closed meanwhile did without these: they count as not forced to disk.
      if (!this.#isClosed && !this.#mark(files)) return this.add(files);
    } catch (error) {
      // The next update says so: a file that could not be forced to disk is gone.
      if (!isOfDisk(error)) throw error;
    } finally {
      for (const file of files) file.release();
    }
  }
}

/** What SQLite or the file system say, such as that the disk is full. */
export function isOfDisk(error: unknown): boolean {
  if (error instanceof NixcacheError) return false;
  return error instanceof SQLiteError || systemCode(error) !== undefined;
}

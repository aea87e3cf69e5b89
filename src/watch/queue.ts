/**
 * What was announced as built and is not committed yet, on disk: files of store paths, one a line, in a folder of one
 * cache and store. Nix's post-build hook writes them, and so do we; they stay until their paths are in the cache, so
 * a process that is killed leaves them to the next one.
 */
import {
  chmodSync,
  closeSync,
  constants,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { messageOf, NixcacheError, systemCode } from "../errors.ts";
import { parseStorePath, STORE_DIR } from "../nar/store-path.ts";
import { openOwnFolder, UnsafeFolder } from "../system/own-folder.ts";
import { openPlainNow } from "../system/plain-file.ts";

const APPEND = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW;

export class Queue {
  /** Where whoever announces writes. */
  readonly folder: string;
  readonly #hook: string;
  readonly #outputsOf: (drvPath: string) => readonly string[];

  /**
   * @param folder made where it is missing; nobody else can look into it
   * @param outputsOf the output paths of a derivation, for hooks that were not told
   * @throws `filesystem`
   */
  constructor(folder: string, outputsOf: (drvPath: string) => readonly string[]) {
    this.#outputsOf = outputsOf;
    this.folder = join(folder, "built");
    this.#hook = join(folder, "hook");
    this.#change("make", () => openOwnFolder(folder, "built"));
  }

  /** The announced store paths of each file. A line that is being written, or is no store path, does not count. */
  read(): Map<string, string[]> {
    return this.#change("read", () => {
      const files = new Map<string, string[]>();
      for (const name of readdirSync(this.folder).sort()) {
        const paths = this.#lines(name).filter(isStorePath);
        if (paths.length > 0) files.set(name, paths);
        else if (name.endsWith(".drv")) files.set(name, [...this.#outputsOf(`${STORE_DIR}/${name}`)]);
      }
      return files;
    });
  }

  append(name: string, paths: readonly string[]): void {
    const text = paths.map((path) => `${path}\n`).join("");
    this.#change("write", () => {
      const fd = openSync(join(this.folder, name), APPEND, 0o600);
      try {
        writeFileSync(fd, text);
      } finally {
        closeSync(fd);
      }
    });
  }

  remove(name: string): void {
    this.#change("remove a file of", () => rmSync(join(this.folder, name), { force: true }));
  }

  /** Writes a program beside the queue, which stays there: builds that outlive us still run it. @returns its path */
  writeHook(script: string): string {
    this.#change("write", () => {
      const draft = `${this.#hook}-${crypto.randomUUID()}`;
      writeFileSync(draft, script, { flag: "wx" });
      chmodSync(draft, 0o755);
      // Builds may be running the one before.
      renameSync(draft, this.#hook);
    });
    return this.#hook;
  }

  #lines(name: string): string[] {
    try {
      const fd = openPlainNow(join(this.folder, name));
      try {
        return readFileSync(fd, "utf8").split("\n").slice(0, -1);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      // Another process has committed it meanwhile.
      if (systemCode(error) === "ENOENT") return [];
      throw error;
    }
  }

  #change<T>(doing: string, action: () => T): T {
    try {
      return action();
    } catch (cause) {
      if (cause instanceof UnsafeFolder) throw cause;
      throw new NixcacheError("filesystem", `cannot ${doing} the queue ${this.folder}: ${messageOf(cause)}`, {
        cause,
      });
    }
  }
}

function isStorePath(text: string): boolean {
  try {
    parseStorePath(text);
    return true;
  } catch {
    return false;
  }
}

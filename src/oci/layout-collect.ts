/**
 * Collecting a layout: removes files in `blobs/` that nothing in `index.json` leads to, as registries do by
 * themselves.
 *
 * A commit looks for its blobs under the lock, and so it finds out what was removed before it. What it finds it
 * keeps: files are removed under the same lock, and only if no manifest that has come meanwhile names them.
 */
import { readdir, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import { NixcacheError } from "../errors.ts";
import type { Digest } from "./digest.ts";
import { readSmallFile, unlessMissing } from "./layout-files.ts";
import type { LayoutIndex } from "./layout-index.ts";
import { MAX_MANIFEST_BYTES, MEDIA_TYPE_MANIFEST } from "./manifest.ts";
import type { CollectedBlobs } from "./store.ts";

/**
 * A blob that no manifest names yet may be an upload under way, or one that was killed and will be found again.
 * It is put under a hold within 15 minutes; the rest is for those who come back.
 */
const UNNAMED_FOR_MS = 24 * 3_600_000;

/** Files removed under one lock, so that others who wait for it get their turn. */
const FILES_PER_LOCK = 1000;

export interface CollectOptions {
  /** `blobs/sha256`. */
  readonly blobs: string;
  readonly readIndex: () => Promise<LayoutIndex>;
  readonly locked: <T>(action: () => Promise<T>) => Promise<T>;
  readonly now: () => number;
}

/** @throws `corrupt` when a manifest cannot be read: what it names is then unknown, and nothing is removed. */
export async function collectBlobs(options: CollectOptions): Promise<CollectedBlobs> {
  const { blobs, readIndex, locked, now } = options;
  const named = new NamedBlobs(blobs);
  await named.addAll(await readIndex());
  const names = (await unlessMissing("read", blobs, () => readdir(blobs))) ?? [];
  const unnamed = names.filter((name) => /^[0-9a-f]{64}$/.test(name) && !named.has(name));
  const collected = { blobs: 0, bytes: 0 };
  for (let from = 0; from < unnamed.length; from += FILES_PER_LOCK) {
    await locked(async () => {
      await named.addAll(await readIndex());
      for (const name of unnamed.slice(from, from + FILES_PER_LOCK)) {
        const file = join(blobs, name);
        const found = named.has(name) ? undefined : await unlessMissing("read", file, () => stat(file));
        // Whoever relies on a file that is there sets its time anew.
        if (found === undefined || now() - found.mtimeMs < UNNAMED_FOR_MS) continue;
        await unlessMissing("remove", file, () => unlink(file));
        collected.blobs++;
        collected.bytes += found.size;
      }
    });
  }
  return collected;
}

/** Names of the files that manifests lead to, as far as they were added. Manifests never change. */
class NamedBlobs {
  readonly #blobs: string;
  readonly #names = new Set<string>();
  readonly #read = new Set<string>();

  constructor(blobs: string) {
    this.#blobs = blobs;
  }

  has(name: string): boolean {
    return this.#names.has(name);
  }

  async addAll({ entries }: LayoutIndex): Promise<void> {
    for (const { digest, mediaType } of entries) {
      if (!(await this.#add(digest, mediaType !== MEDIA_TYPE_MANIFEST))) {
        throw new NixcacheError(
          "corrupt",
          `collect ${this.#blobs}: index.json names ${digest}, which is no manifest there that can be read`,
          { hint: "Run nixcache verify --repair; until then nothing is removed." },
        );
      }
    }
  }

  /**
   * Adds a manifest and all that its text names: other tools' manifests have fields that we do not know.
   * @param deep also what those name, for indexes of manifests; false when it is no small file
   */
  async #add(digest: Digest, deep: boolean): Promise<boolean> {
    const name = digest.slice("sha256:".length);
    this.#names.add(name);
    if (this.#read.has(name)) return true;
    const file = join(this.#blobs, name);
    const size = (await unlessMissing("read", file, () => stat(file)))?.size;
    if (size === undefined || size > MAX_MANIFEST_BYTES) return false;
    const bytes = await readSmallFile(file, MAX_MANIFEST_BYTES);
    this.#read.add(name);
    const text = Buffer.from(bytes ?? []).toString("latin1");
    for (const [found] of text.matchAll(/sha256:[0-9a-f]{64}(?![0-9a-f])/g)) {
      this.#names.add(found.slice("sha256:".length));
      if (deep) await this.#add(found as Digest, true);
    }
    return true;
  }
}

/** Caches that the rows about serving share: in a folder, with their index loaded once. */
import { join } from "node:path";
import { realHost } from "../src/context.ts";
import { openStore } from "../src/oci/open.ts";
import { parseReference } from "../src/oci/reference.ts";
import type { Store } from "../src/oci/store.ts";
import type { CliServer } from "../tests/support/cli.ts";
import type { Bench } from "./bench.ts";
import { benchEntry, benchStoreHash, writeCache } from "./cache.ts";

/** Level 1: a million entries are made by the minute. */
const QUICK_LEVEL = 1;

export interface Folder {
  readonly reference: string;
  /** Of its local index, which is loaded. */
  readonly indexDirectory: string;
}

/** The store behind a cache reference, to write into. */
export function writableStore(reference: string): Store {
  return openStore(parseReference(reference), { host: realHost, access: "write" });
}

/** A cache of so many entries in a folder. Made once. */
export function cacheFolder(bench: Bench, entries: number): Promise<Folder> {
  return bench.once(`cache of ${entries}`, async () => {
    const path = join(bench.folder, `cache-${entries}`);
    await writeCache(writableStore(path), { entries, level: QUICK_LEVEL });
    const folder = { reference: path, indexDirectory: join(bench.folder, `index-${entries}`) };
    const server = await serveFolder(bench, folder);
    await refreshed(server);
    await server.stop();
    return folder;
  });
}

export async function serveFolder(bench: Bench, folder: Folder, ...args: string[]): Promise<CliServer> {
  const env = { NIXCACHE_INDEX_DIR: folder.indexDirectory };
  const upstream = args.includes("--upstream") ? [] : ["--upstream", ""];
  return bench.cli.serve(["--cache", folder.reference, ...upstream, ...args], { env });
}

/** Waits until the server has read its cache. */
export async function refreshed(server: CliServer): Promise<void> {
  const answer = await server.get("/_refresh", { method: "POST" });
  if (!answer.ok) throw new Error(`refresh: ${answer.status} ${await answer.text()}`);
  await answer.text();
}

/** A server that the row ends. */
export function stopped(server: CliServer): { close(): Promise<unknown> } {
  return { close: () => server.stop() };
}

/** Evenly out of all entries, at most so many. */
export function someIndexes(entries: number, most: number): number[] {
  const step = Math.max(1, Math.floor(entries / most));
  return Array.from({ length: Math.min(entries, most) }, (_, place) => place * step);
}

/** A file with the narinfo paths of these entries, a line each. */
export async function writePaths(bench: Bench, name: string, hashes: readonly string[]): Promise<string> {
  const file = join(bench.folder, name);
  await Bun.write(file, hashes.map((hash) => `/${hash}.narinfo\n`).join(""));
  return file;
}

export { benchEntry, benchStoreHash };

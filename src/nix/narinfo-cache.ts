/**
 * What Nix remembers of binary caches: narinfos that it was given for 30 days, and misses for an hour, also when the
 * cache has other answers meanwhile.
 *
 * It keeps them in `binary-cache-v6.sqlite` (v7 in newer releases) in its cache folder, of whoever asked: the user, or
 * root where a daemon substitutes. The tables are its own affair, but the same in every release from 2.4 to 2.35:
 *
 *     BinaryCaches(id, url, timestamp, …)
 *     NARs(cache, hashPart, namePart, …, sigs, timestamp, present)
 *
 * https://nix.dev/manual/nix/latest/command-ref/conf-file#conf-narinfo-cache-positive-ttl
 */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { messageOf, systemCode } from "../errors.ts";
import { DatabaseUnreadable, reading } from "./database.ts";

export interface RememberedPath {
  readonly storeHash: string;
  /** Whether Nix was given a narinfo. */
  readonly present: boolean;
  /** Those of the narinfo: `name:base64`. */
  readonly sigs: readonly string[];
  /** When it was asked for, in milliseconds since 1970. */
  readonly at: number;
}

export type NarInfoMemory =
  /** Newest first. */
  | { readonly kind: "read"; readonly file: string; readonly paths: readonly RememberedPath[] }
  | { readonly kind: "none" }
  | { readonly kind: "unreadable"; readonly file: string; readonly reason: string };

/** Paths of one cache that are looked at, the newest: looking at each of them takes some 20 µs. */
const MAX_PATHS = 20_000;

const FILE = /^binary-cache-v\d+\.sqlite$/;

interface Row {
  hashPart: string;
  present: number;
  sigs: string | null;
  timestamp: number;
}

/**
 * What is remembered of the cache at `url`.
 *
 * @param folder Nix's own cache folder, such as `~/.cache/nix`
 * @param since milliseconds since 1970: what was remembered before counts no more
 */
export function readNarInfoMemory(
  folder: string,
  url: string,
  since: { readonly found: number; readonly missed: number },
): NarInfoMemory {
  let file: string | undefined;
  try {
    file = newestFile(folder);
  } catch (error) {
    const code = systemCode(error);
    if (code === "ENOENT" || code === "ENOTDIR") return { kind: "none" };
    return { kind: "unreadable", file: folder, reason: messageOf(error) };
  }
  if (file === undefined) return { kind: "none" };
  try {
    const rows = reading(file, (db) => {
      const caches = db.query<{ id: number; url: string }, []>("SELECT id, url FROM BinaryCaches").all();
      const ids = caches.filter((cache) => isSameCache(cache.url, url)).map(({ id }) => id);
      return db
        .query<Row, [string, number, number, number]>(
          `SELECT hashPart, present, sigs, timestamp FROM NARs
           WHERE cache IN (SELECT value FROM json_each(?))
             AND ((present = 1 AND timestamp > ?) OR (present = 0 AND timestamp > ?))
           ORDER BY timestamp DESC LIMIT ?`,
        )
        .all(JSON.stringify(ids), since.found / 1000, since.missed / 1000, MAX_PATHS);
    });
    return { kind: "read", file, paths: rows.map(decode) };
  } catch (error) {
    if (error instanceof DatabaseUnreadable) return { kind: "unreadable", file, reason: error.message };
    throw error;
  }
}

/** An older Nix has left another file there; the one that was written last is in use. */
function newestFile(folder: string): string | undefined {
  const files = readdirSync(folder)
    .filter((name) => FILE.test(name))
    .map((name) => join(folder, name));
  const written = (file: string) => statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  return files.toSorted((a, b) => written(b) - written(a))[0];
}

/** Whether two URLs name one cache: settings such as `?priority=10` and slashes at the end do not count. */
export function isSameCache(a: string, b: string): boolean {
  const plain = (url: string) => url.replace(/[?#].*$/s, "").replace(/\/+$/, "");
  return plain(a) === plain(b);
}

function decode({ hashPart, present, sigs, timestamp }: Row): RememberedPath {
  return {
    storeHash: hashPart,
    present: present !== 0,
    sigs: (sigs ?? "").split(/\s+/).filter((sig) => sig !== ""),
    at: timestamp * 1000,
  };
}

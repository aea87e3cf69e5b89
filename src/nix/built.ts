/**
 * Which paths were built here, in the order in which they became valid: by the ids of Nix's database, which only
 * grow, also when paths are deleted.
 */
import type { Database } from "bun:sqlite";
import { reading } from "./database.ts";
import { type Environment, locateStore } from "./location.ts";

export interface BuiltPath {
  readonly path: string;
  /** Bytes of its NAR, as Nix recorded them. */
  readonly narSize: number;
}

export interface BuiltPaths {
  /** In the order in which they became valid. */
  readonly paths: readonly BuiltPath[];
  /** The id up to which was looked. */
  readonly until: number;
}

export interface BuiltOptions {
  readonly env: Environment;
  readonly storeRoot?: string | undefined;
  readonly cwd?: string | undefined;
}

/**
 * An output that was built on this machine is `ultimate`. One that a remote machine built for it is not, but has a
 * derivation and no signature. Sources and derivations were never built; what was substituted is signed.
 */
const BUILT = `
  SELECT path, coalesce(narSize, 0) AS narSize FROM ValidPaths
  WHERE id > ?1 AND id <= ?2 AND path NOT LIKE '%.drv' AND deriver IS NOT NULL
    AND (ultimate = 1 OR (coalesce(sigs, '') = '' AND ca IS NULL))
    AND (?3 IS NULL OR deriver IN (SELECT value FROM json_each(?3)))
  ORDER BY id`;

/**
 * The outputs that were built here and are valid.
 *
 * @param after an id; 0 for all
 * @param derivations only outputs of these; default: of any
 * @throws DatabaseUnreadable
 */
export function builtPaths(
  options: BuiltOptions,
  after: number,
  derivations?: ReadonlySet<string>,
): BuiltPaths {
  const derivers = derivations ? JSON.stringify([...derivations]) : null;
  return reading(database(options), (db) => {
    const until = newestId(db);
    if (until <= after) return { paths: [], until: after };
    const paths = db.query<BuiltPath, [number, number, string | null]>(BUILT).all(after, until, derivers);
    return { paths, until };
  });
}

/** The id of the path that became valid last; 0 in an empty store. @throws DatabaseUnreadable */
export function newestPathId(options: BuiltOptions): number {
  return reading(database(options), newestId);
}

function newestId(db: Database): number {
  // Not the greatest id that is there: that path may be deleted, and ids go on behind it.
  const query = "SELECT seq FROM sqlite_sequence WHERE name = 'ValidPaths'";
  return db.query<{ seq: number }, []>(query).get()?.seq ?? 0;
}

function database({ storeRoot, env, cwd = process.cwd() }: BuiltOptions): string | undefined {
  return locateStore(storeRoot, env, cwd).database;
}

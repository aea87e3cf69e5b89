/**
 * The local Nix store, read-only: which paths are valid, what Nix recorded about them, and where their files are.
 *
 * Answers come from Nix's database; where that cannot be read (another user's, on a network file system, behind
 * a daemon elsewhere), from Nix's commands, which take ten times as long.
 */
import { existsSync } from "node:fs";
import { NixcacheError } from "../errors.ts";
import type { Realisation } from "../nar/realisation.ts";
import { NixCommands } from "./ask.ts";
import { type RunCommand, runCommand } from "./command.ts";
import { closureInDatabase, DatabaseUnreadable, isValidInDatabase, notValid } from "./database.ts";
import { type Environment, locateStore, type StoreLocation } from "./location.ts";
import { readBuildLog } from "./logs.ts";
import type { PathInfo } from "./path-info.ts";
import { realisationsInDatabase } from "./realisations.ts";
import { resolveToStorePath } from "./resolve.ts";
import { referencesFirst } from "./topological.ts";

export type { Environment } from "./location.ts";
export type { PathInfo } from "./path-info.ts";

export interface NixStore {
  /** The folder that store paths begin with, usually `/nix/store`. */
  readonly storeDir: string;
  /** Where the files of a store path are: the path itself, but for a chroot store. */
  realPath(storePath: string): string;
  /**
   * The given valid paths and all they refer to, directly or not; references first, of those that could come
   * next the bytewise smallest.
   *
   * @throws `nix-store` when one of them is not valid.
   */
  closure(paths: readonly string[]): Promise<PathInfo[]>;
  /**
   * The valid store path that `argument` names: a store path, a file below one, or a symbolic link there, such
   * as `./result`.
   *
   * @throws `nix-store` for anything else.
   */
  resolve(argument: string): Promise<string>;
  /**
   * The log of the build of a derivation, given by its store path; undefined when there is none that could be
   * kept in memory.
   *
   * @throws `nix-store` when it cannot be read.
   */
  buildLog(derivation: string): Uint8Array | undefined;
  /** The realisations of each of `paths` that has some. None where Nix's database cannot be read. */
  realisations(paths: readonly string[]): Map<string, Realisation[]>;
}

export interface NixStoreOptions {
  /** Root of a chroot store, or a store URI as `nix --store` takes it. Default: NIX_REMOTE, else `/nix`. */
  readonly storeRoot?: string | undefined;
  /** NIX_REMOTE, NIX_STORE_DIR, NIX_STATE_DIR and NIX_LOG_DIR; all of it goes to Nix's commands, found by its PATH. */
  readonly env: Environment;
  /** What relative arguments are relative to. Default: the current folder. */
  readonly cwd?: string;
  /** Runs Nix's commands. Default: really. */
  readonly run?: RunCommand;
}

/** Opens nothing yet. @throws `nix-store` when the store's files are not on this machine. */
export function openNixStore(options: NixStoreOptions): NixStore {
  const { env, cwd = process.cwd(), run = runCommand } = options;
  const location = locateStore(options.storeRoot, env, cwd);
  const commands = new NixCommands(location, env, run);

  return {
    storeDir: location.storeDir,

    realPath(storePath) {
      if (!storePath.startsWith(`${location.storeDir}/`)) {
        throw new NixcacheError("internal", `${storePath} is not in ${location.storeDir}`);
      }
      return location.realStoreDir + storePath.slice(location.storeDir.length);
    },

    async closure(paths) {
      if (paths.length === 0) return [];
      const roots = [...new Set(paths)];
      const infos = await orElse(
        location,
        () => closureInDatabase(location.database, roots),
        () => commands.closure(roots),
      );
      return referencesFirst(infos);
    },

    async resolve(argument) {
      const path = await resolveToStorePath(argument, cwd, location);
      const valid = await orElse(
        location,
        () => isValidInDatabase(location.database, path),
        async () => (await commands.invalid([path])).length === 0,
      );
      if (!valid) throw notValid(path);
      return path;
    },

    buildLog(derivation) {
      return readBuildLog(location.logDir, derivation.slice(location.storeDir.length + 1));
    },

    realisations(paths) {
      try {
        return realisationsInDatabase(location.database, paths);
      } catch (error) {
        if (error instanceof DatabaseUnreadable) return new Map();
        throw error;
      }
    },
  };
}

/** Reads the database, or asks Nix where it can know more than the database. */
async function orElse<T>(location: StoreLocation, read: () => T, ask: () => Promise<T>): Promise<T> {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof DatabaseUnreadable)) throw error;
    // Without a daemon there is nobody to know more; as root, Nix would even create an empty store.
    if (error.missing && !location.asksDaemon && !existsSync(location.daemonSocket)) {
      throw new NixcacheError(
        "nix-store",
        `there is no Nix store here: ${location.database} does not exist`,
        {
          hint: "Install Nix and build something with it; for a store elsewhere set NIX_REMOTE to its root folder.",
          cause: error,
        },
      );
    }
  }
  return await ask();
}

/** Which store paths are there, and what is known of each. */
import { NixCommands } from "./ask.ts";
import { type RunCommand, runCommand } from "./command.ts";
import { DatabaseUnreadable, reading } from "./database.ts";
import { type Environment, locateStore } from "./location.ts";

export interface Validity {
  /** Seconds since 1970; undefined where Nix's database cannot be read. */
  readonly registrationTime?: number;
  /** Of Nix's database, where ids only grow; undefined where it cannot be read. */
  readonly id?: number;
  /** Built here; undefined where the database cannot be read. */
  readonly ultimate?: boolean;
}

export interface ValidOptions {
  readonly env: Environment;
  readonly storeRoot?: string | undefined;
  readonly cwd?: string | undefined;
  /** Runs Nix's commands. Default: really. */
  readonly run?: RunCommand;
}

/** Those of `paths` that are valid, in no particular order. @throws `nix-store` when the store cannot be asked. */
export async function validPaths(
  paths: readonly string[],
  options: ValidOptions,
): Promise<Map<string, Validity>> {
  if (paths.length === 0) return new Map();
  const location = locateStore(options.storeRoot, options.env, options.cwd ?? process.cwd());
  try {
    return reading(location.database, (db) => {
      const rows = db
        .query<{ path: string; id: number; registrationTime: number; ultimate: number | null }, [string]>(
          "SELECT path, id, registrationTime, ultimate FROM ValidPaths WHERE path IN (SELECT value FROM json_each(?))",
        )
        .all(JSON.stringify(paths));
      return new Map(rows.map(({ path, ultimate, ...row }) => [path, { ...row, ultimate: ultimate === 1 }]));
    });
  } catch (error) {
    if (!(error instanceof DatabaseUnreadable)) throw error;
  }
  const commands = new NixCommands(location, options.env, options.run ?? runCommand);
  const invalid = new Set(await commands.invalid(paths));
  return new Map(paths.filter((path) => !invalid.has(path)).map((path) => [path, {}]));
}

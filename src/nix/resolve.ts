/**
 * From what a person names to a store path: `/nix/store/…`, a file below one, `./result`, or a link to a link.
 */
import { lstat, readlink, realpath } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { messageOf, type NixcacheError, systemCode } from "../errors.ts";
import { isBaseName } from "../nar/store-path.ts";
import type { StoreLocation } from "./location.ts";
import { NoStorePath } from "./no-store-path.ts";

/** Linux gives up after as many. */
const MAX_LINKS = 40;

/**
 * The store path that `argument` is, lies below, or leads to by symbolic links. Whether it is valid is for the
 * store to say.
 *
 * Nix follows only links that are the argument itself; here those on the way count too, so that
 * `./result/bin/hello` names what it looks like.
 *
 * @param cwd what a relative argument is relative to.
 * @throws `nix-store` when it leads anywhere else.
 */
export async function resolveToStorePath(
  argument: string,
  cwd: string,
  location: Pick<StoreLocation, "storeDir" | "realStoreDir">,
): Promise<string> {
  if (argument === "") throw outside(argument, "the empty text is no path", location);
  const folders = [location.storeDir, location.realStoreDir];
  // Where the store folder is itself reached by a link, links resolved by others name the folder behind it.
  const real = await realpath(location.realStoreDir).catch(() => undefined);
  if (real !== undefined) folders.push(real);

  let path = resolve(cwd, argument);
  for (let links = 0; links <= MAX_LINKS; links++) {
    const base = baseNameIn(folders, path);
    if (base !== undefined) {
      if (!isBaseName(base)) throw outside(argument, `${base} is no store path's name`, location);
      return `${location.storeDir}/${base}`;
    }
    const next = await followFirstLink(argument, path, location);
    if (next === undefined) throw outside(argument, "it is not in the Nix store", location);
    path = next;
  }
  throw outside(argument, "too many symbolic links", location);
}

/** The component after the store folder. */
function baseNameIn(folders: readonly string[], path: string): string | undefined {
  for (const folder of folders) {
    if (!path.startsWith(`${folder}/`)) continue;
    return path.slice(folder.length + 1).split("/", 1)[0];
  }
  return undefined;
}

/** `path` with its first symbolic link replaced; undefined when it has none. */
async function followFirstLink(
  argument: string,
  path: string,
  location: Pick<StoreLocation, "storeDir">,
): Promise<string | undefined> {
  const parts = path.split("/").slice(1);
  let prefix = "";
  for (const [index, part] of parts.entries()) {
    prefix += `/${part}`;
    try {
      if (!(await lstat(prefix)).isSymbolicLink()) continue;
      const rest = parts.slice(index + 1).join("/");
      return resolve(dirname(prefix), await readlink(prefix), rest);
    } catch (error) {
      const absent = systemCode(error) === "ENOENT" || systemCode(error) === "ENOTDIR";
      throw outside(argument, absent ? "it does not exist" : messageOf(error), location, error);
    }
  }
  return undefined;
}

function outside(
  argument: string,
  reason: string,
  location: Pick<StoreLocation, "storeDir">,
  cause?: unknown,
): NixcacheError {
  return new NoStorePath(`${JSON.stringify(argument)} names no path of the Nix store: ${reason}`, {
    hint: `Give a path in ${location.storeDir} or a link to one, such as the ./result that \`nix build\` leaves.`,
    cause,
  });
}

/**
 * Where a Nix store is on disk, from what Nix itself goes by: `--store`, NIX_REMOTE, NIX_STORE_DIR,
 * NIX_STATE_DIR and NIX_LOG_DIR. What its setting `store` says is given as if by `--store`.
 *
 * A *chroot store* lies under a folder of its own: its paths say `/nix/store/…` and its files are in
 * `ROOT/nix/store/…`. https://nix.dev/manual/nix/latest/store/types/local-store
 */
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { NixcacheError } from "../errors.ts";

/** Environment variables by name, handed in by the caller. */
export type Environment = Readonly<Record<string, string | undefined>>;

export interface StoreLocation {
  /** The folder that store paths begin with, usually `/nix/store`. */
  readonly storeDir: string;
  /** The folder that holds their files; differs from `storeDir` in a chroot store. */
  readonly realStoreDir: string;
  /** The folder with Nix's own files, usually `/nix/var/nix`. */
  readonly stateDir: string;
  /** The SQLite file with the valid paths; undefined where a daemon may keep it anywhere. */
  readonly database: string | undefined;
  /** The folder that holds the logs of builds. */
  readonly logDir: string;
  /** What `--store` must say to Nix's commands where the environment does not say it already. */
  readonly storeUri?: string;
  /** Nix is told to ask its daemon, which may have a database that is not here. */
  readonly asksDaemon: boolean;
  /** Where a daemon listens that Nix asks by itself when it is there. */
  readonly daemonSocket: string;
}

/** What Nix looks at where nobody says which store. */
export interface Machine {
  exists(path: string): boolean;
  /** The user's number; undefined where there is none. */
  readonly uid: number | undefined;
}

const THIS_MACHINE: Machine = { exists: existsSync, uid: process.getuid?.() };

/**
 * @param store a chroot store's root or a store URI as `nix --store` takes it; NIX_REMOTE when undefined.
 * @param cwd what a relative root is relative to.
 * @throws `nix-store` when the store's files are not on this machine.
 */
export function locateStore(
  store: string | undefined,
  env: Environment,
  cwd: string,
  machine: Machine = THIS_MACHINE,
): StoreLocation {
  const storeDir = nonEmpty(env.NIX_STORE_DIR) ?? "/nix/store";
  const uri = nonEmpty(store) ?? nonEmpty(env.NIX_REMOTE) ?? "auto";
  const [scheme = "", query = ""] = splitOnce(uri, "?");
  const settings = new URLSearchParams(query);
  let root = settings.get("root") ?? "";

  const socket = /^unix:\/\/(.*)$/s.exec(scheme)?.[1];
  const isDaemon = scheme === "daemon" || socket !== undefined;
  if (isDaemon || scheme === "local") {
    // The common folders, unless the query says otherwise.
  } else if (scheme === "auto") {
    root ||= ownRoot(settings, env, machine) ?? "";
  } else if (scheme.startsWith("local://")) {
    // From 2.34 on Nix says so what it was given as a path.
    root ||= decoded(scheme.slice("local://".length));
  } else if (!uri.includes("://") && (uri.includes("/") || store !== undefined)) {
    root = scheme;
  } else {
    throw new NixcacheError(
      "nix-store",
      `the files of the Nix store ${JSON.stringify(uri)} are not on this machine`,
      {
        hint: "Name a local store by --store, or change NIX_REMOTE or the setting `store` of nix.conf, whichever says so.",
      },
    );
  }

  if (root !== "") root = resolve(cwd, root);
  const stateDir =
    settings.get("state") ??
    (root === "" ? (nonEmpty(env.NIX_STATE_DIR) ?? "/nix/var/nix") : `${root}/nix/var/nix`);
  const daemonSocket = `${stateDir}/daemon-socket/socket`;
  // A daemon with a socket of its own mostly has a database of its own as well, unless it is said where that is.
  const isOwn = socket !== undefined && socket !== "" && socket !== daemonSocket;
  const isElsewhere = isOwn && !settings.has("state");
  return {
    storeDir,
    realStoreDir: settings.get("real") ?? (root === "" ? storeDir : `${root}/nix/store`),
    stateDir,
    database: isElsewhere ? undefined : `${stateDir}/db/db.sqlite`,
    logDir:
      settings.get("log") ??
      (root === "" ? (nonEmpty(env.NIX_LOG_DIR) ?? "/nix/var/log/nix") : `${root}/nix/var/log/nix`),
    ...(nonEmpty(store) === undefined ? {} : { storeUri: query === "" && root !== "" ? root : uri }),
    asksDaemon: isDaemon,
    daemonSocket,
  };
}

/** The chroot store of one's own that Nix takes where there is none for the machine, as it does on Linux. */
function ownRoot(settings: URLSearchParams, env: Environment, { exists, uid }: Machine): string | undefined {
  const stateDir = nonEmpty(env.NIX_STATE_DIR) ?? "/nix/var/nix";
  const isPlain = settings.size === 0 && !env.NIX_STORE_DIR && !env.NIX_STATE_DIR;
  if (process.platform !== "linux" || uid === 0 || !isPlain || exists(stateDir)) return undefined;
  const home = nonEmpty(env.HOME);
  const data = nonEmpty(env.XDG_DATA_HOME) ?? (home && join(home, ".local", "share"));
  return data === undefined ? undefined : join(data, "nix", "root");
}

function decoded(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === "" ? undefined : text;
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + separator.length)];
}

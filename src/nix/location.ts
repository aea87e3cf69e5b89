/**
 * Where a Nix store is on disk, from what Nix itself goes by: `--store`, NIX_REMOTE, NIX_STORE_DIR,
 * NIX_STATE_DIR and NIX_LOG_DIR.
 *
 * A *chroot store* lies under a folder of its own: its paths say `/nix/store/…` and its files are in
 * `ROOT/nix/store/…`. https://nix.dev/manual/nix/latest/store/types/local-store
 */
import { resolve } from "node:path";
import { NixcacheError } from "../errors.ts";

/** Environment variables by name, handed in by the caller. */
export type Environment = Readonly<Record<string, string | undefined>>;

export interface StoreLocation {
  /** The folder that store paths begin with, usually `/nix/store`. */
  readonly storeDir: string;
  /** The folder that holds their files; differs from `storeDir` in a chroot store. */
  readonly realStoreDir: string;
  /** The SQLite file with the valid paths. */
  readonly database: string;
  /** The folder that holds the logs of builds. */
  readonly logDir: string;
  /** What `--store` must say to Nix's commands where the environment does not say it already. */
  readonly storeUri?: string;
  /** Nix is told to ask its daemon, which may have a database that is not here. */
  readonly asksDaemon: boolean;
  /** Where a daemon listens that Nix asks by itself when it is there. */
  readonly daemonSocket: string;
}

/**
 * @param store a chroot store's root or a store URI as `nix --store` takes it; NIX_REMOTE when undefined.
 * @param cwd what a relative root is relative to.
 * @throws `nix-store` when the store's files are not on this machine.
 */
export function locateStore(store: string | undefined, env: Environment, cwd: string): StoreLocation {
  const storeDir = nonEmpty(env.NIX_STORE_DIR) ?? "/nix/store";
  const uri = nonEmpty(store) ?? nonEmpty(env.NIX_REMOTE) ?? "auto";
  const [scheme = "", query = ""] = splitOnce(uri, "?");
  const settings = new URLSearchParams(query);
  let root = settings.get("root") ?? "";

  const isDaemon = scheme === "daemon" || scheme.startsWith("unix://");
  if (isDaemon || scheme === "auto" || scheme === "local" || scheme === "local://") {
    // The common folders, unless the query says otherwise.
  } else if (!uri.includes("://") && (uri.includes("/") || store !== undefined)) {
    root = scheme;
  } else {
    throw new NixcacheError(
      "nix-store",
      `the files of the Nix store ${JSON.stringify(uri)} are not on this machine`,
      {
        hint: "Name a local store: unset NIX_REMOTE, or set it to `daemon` or to a folder.",
      },
    );
  }

  if (root !== "") root = resolve(cwd, root);
  const stateDir =
    settings.get("state") ??
    (root === "" ? (nonEmpty(env.NIX_STATE_DIR) ?? "/nix/var/nix") : `${root}/nix/var/nix`);
  return {
    storeDir,
    realStoreDir: settings.get("real") ?? (root === "" ? storeDir : `${root}/nix/store`),
    database: `${stateDir}/db/db.sqlite`,
    logDir:
      settings.get("log") ??
      (root === "" ? (nonEmpty(env.NIX_LOG_DIR) ?? "/nix/var/log/nix") : `${root}/nix/var/log/nix`),
    ...(nonEmpty(store) === undefined ? {} : { storeUri: query === "" && root !== "" ? root : uri }),
    asksDaemon: isDaemon,
    daemonSocket: `${stateDir}/daemon-socket/socket`,
  };
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === "" ? undefined : text;
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + separator.length)];
}

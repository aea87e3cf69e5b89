/**
 * Whether a daemon stands between this user and the Nix store, and does what the user's own settings say.
 *
 * A daemon takes substituters from those whom it trusts, from others only those that its own configuration names; and
 * keys from those whom it trusts alone. https://nix.dev/manual/nix/latest/command-ref/conf-file#conf-trusted-users
 */
import { accessSync, constants, existsSync } from "node:fs";
import { EXPERIMENTAL } from "./ask.ts";
import type { RunCommand } from "./command.ts";
import { type NixConfiguration, readConfiguration } from "./configuration.ts";
import { type Environment, locateStore, type StoreLocation } from "./location.ts";
import { configuredStore } from "./store-setting.ts";
import { readUserName } from "./user.ts";

export type Trust =
  /** Nix does it all itself. */
  | { readonly kind: "no-daemon" }
  | { readonly kind: "trusted"; readonly user: string }
  | {
      readonly kind: "untrusted";
      readonly user: string;
      /** What the daemon goes by instead. */
      readonly daemon: NixConfiguration;
    };

export async function readTrust(run: RunCommand, env: Environment, signal?: AbortSignal): Promise<Trust> {
  const store = await configuredStore(run, env, signal);
  if (!asksDaemon(store, env)) return { kind: "no-daemon" };
  const user = await readUserName(run, env, signal);
  const daemon = await readConfiguration(run, env, { of: "machine", ...(signal && { signal }) });
  const said = await askDaemon(run, env, signal);
  const trusted = said ?? matches(daemon.trustedUsers, user, await groupNames(run, env, signal));
  return trusted ? { kind: "trusted", user } : { kind: "untrusted", user, daemon };
}

/** As Nix decides it by default: the store's own folder when it can be written, else the daemon when there is one. */
function asksDaemon(store: string | undefined, env: Environment): boolean {
  let location: StoreLocation;
  try {
    location = locateStore(store, env, process.cwd());
  } catch {
    // A store elsewhere: whoever is there decides.
    return true;
  }
  if (location.asksDaemon) return true;
  return !isWritable(location.stateDir) && existsSync(location.daemonSocket);
}

/** Nix from 2.15 on is told by the daemon. */
async function askDaemon(
  run: RunCommand,
  env: Environment,
  signal?: AbortSignal,
): Promise<boolean | undefined> {
  const { exitCode, stdout } = await run(["nix", ...EXPERIMENTAL, "store", "ping", "--json"], env, signal);
  signal?.throwIfAborted();
  if (exitCode !== 0) return undefined;
  try {
    const { trusted } = JSON.parse(stdout) as { trusted?: unknown };
    return trusted === undefined || trusted === null ? undefined : Boolean(trusted);
  } catch {
    return undefined;
  }
}

export function matches(trustedUsers: readonly string[], user: string, groups: readonly string[]): boolean {
  return trustedUsers.some(
    (entry) => entry === "*" || entry === user || (entry.startsWith("@") && groups.includes(entry.slice(1))),
  );
}

async function groupNames(run: RunCommand, env: Environment, signal?: AbortSignal): Promise<string[]> {
  const { stdout } = await run(["id", "-Gn"], env, signal);
  return stdout.trim().split(/\s+/);
}

function isWritable(folder: string): boolean {
  try {
    accessSync(folder, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

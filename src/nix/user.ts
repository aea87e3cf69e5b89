/** Who runs us, by the number that the system has for them: USER and HOME say what they like. */
import { statSync } from "node:fs";
import { homedir } from "node:os";
import type { RunCommand } from "./command.ts";
import type { Environment } from "./location.ts";

/** The name; the number where it has none, as in containers. */
export async function readUserName(run: RunCommand, env: Environment, signal?: AbortSignal): Promise<string> {
  const uid = String(process.getuid?.() ?? "");
  try {
    const { exitCode, stdout } = await run(["id", "-un"], env, signal);
    return exitCode === 0 && stdout.trim() !== "" ? stdout.trim() : uid;
  } catch {
    return uid;
  }
}

export function isRoot(): boolean {
  return process.getuid?.() === 0;
}

/** Where root's files are. */
export const ROOT_HOME = process.platform === "darwin" ? "/var/root" : "/root";

/** As Nix has it: sudo may leave root with the HOME of somebody else, which Nix does not use then. */
function nixHome(env: Environment): string {
  const home = env.HOME || homedir();
  if (!isRoot()) return home;
  try {
    return statSync(home).uid === 0 ? home : ROOT_HOME;
  } catch {
    return home;
  }
}

/**
 * The folder in which Nix keeps what it can have again.
 * @param version of Nix: old ones do not know NIX_CACHE_HOME
 */
export function nixCacheFolder(env: Environment, version = ""): string {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  if (env.NIX_CACHE_HOME && (major > 2 || minor >= 26)) return env.NIX_CACHE_HOME;
  return `${env.XDG_CACHE_HOME || `${nixHome(env)}/.cache`}/nix`;
}

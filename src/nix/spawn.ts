/** Starts Nix's programs, says why one cannot be started, and keeps lists below the system's limit for arguments. */
import { accessSync, constants, existsSync } from "node:fs";
import { join } from "node:path";
import { childEnvironment, withSafeGit } from "../child-environment.ts";
import { messageOf, NixcacheError, systemCode } from "../errors.ts";
import type { Environment } from "./location.ts";

/**
 * Bytes of one argument, its NUL included. Linux's own limit, whatever its others are: MAX_ARG_STRLEN.
 * https://man7.org/linux/man-pages/man2/execve.2.html
 */
export const MAX_ARGUMENT_BYTES = 32 * 4096;

/**
 * Bytes of a list that is given to one command at first. Linux takes 2 MiB of arguments and environment unless the
 * stack is limited, macOS 1 MiB; where it is less, the list is halved until it fits.
 */
const BATCH_BYTES = 768 * 1024;

/** What an argument takes besides its bytes: a NUL and a pointer. */
const ARGUMENT_OVERHEAD = 9;

type Streams = { stdout: "pipe" | "ignore" };

/**
 * Starts a program that is found by the PATH of `env`, without input, its standard error a pipe.
 *
 * @throws `nix-store` when it cannot be started; the reason of the signal when that fired before
 */
export function startProgram<S extends Streams>(
  argv: readonly string[],
  env: Environment,
  options: S & { readonly cwd?: string | undefined; readonly signal?: AbortSignal | undefined },
): Bun.Subprocess<"ignore", S["stdout"], "pipe"> {
  const { cwd, signal, stdout } = options;
  const [name = ""] = argv;
  const program = Bun.which(name, { PATH: env.PATH ?? "" });
  if (program === null) throw notFound(name, env);
  signal?.throwIfAborted();
  try {
    return Bun.spawn([program, ...argv.slice(1)], {
      env: withSafeGit(childEnvironment(env)),
      ...(cwd !== undefined && { cwd }),
      ...(signal && { signal, killSignal: "SIGKILL" }),
      stdin: "ignore",
      stdout: stdout as S["stdout"],
      stderr: "pipe",
    });
  } catch (error) {
    throw cannotStart(name, program, cwd, error);
  }
}

/**
 * Runs a command for all of `items`, for as many at once as the system takes.
 *
 * @param run gets neither more nor fewer of them when it is called again because of `E2BIG`, for then nothing was run.
 * @throws what `run` throws
 */
export async function inBatches(
  items: readonly string[],
  run: (batch: readonly string[]) => Promise<void>,
): Promise<void> {
  let limit = BATCH_BYTES;
  for (let start = 0; start < items.length; ) {
    const end = batchEnd(items, start, limit);
    try {
      await run(items.slice(start, end));
      start = end;
    } catch (error) {
      if (end - start === 1 || !isTooLong(error)) throw error;
      limit = Math.floor(bytesOf(items.slice(start, end)) / 2);
    }
  }
}

/** The index behind the last item that fits; at least one does. */
function batchEnd(items: readonly string[], start: number, limit: number): number {
  let bytes = 0;
  for (let index = start; index < items.length; index++) {
    bytes += argumentBytes(items[index] ?? "");
    if (bytes > limit && index > start) return index;
  }
  return items.length;
}

function bytesOf(items: readonly string[]): number {
  return items.reduce((sum, item) => sum + argumentBytes(item), 0);
}

function argumentBytes(text: string): number {
  return Buffer.byteLength(text) + ARGUMENT_OVERHEAD;
}

function isTooLong(error: unknown): boolean {
  return error instanceof NixcacheError && systemCode(error.cause) === "E2BIG";
}

function notFound(name: string, env: Environment): NixcacheError {
  const folders = (env.PATH ?? "").split(":").filter((folder) => folder !== "");
  const file = folders.map((folder) => join(folder, name)).find((file) => existsSync(file));
  if (file !== undefined) return failure(name, `${file} is no program that this user may run`, RIGHTS);
  return failure(name, "it is not in PATH", INSTALL);
}

const INSTALL = "Install Nix (https://nixos.org/download, on Debian `apt-get install nix-bin`).";
const RIGHTS =
  "Check the rights of the program and of the folders above it, and that its file system is not mounted noexec.";

/** By what the system said. https://man7.org/linux/man-pages/man2/execve.2.html */
const REASONS: Readonly<Record<string, readonly [reason: string, hint: string]>> = {
  E2BIG: [
    "its arguments and the environment are longer than this system allows",
    "Unset long variables (`env | wc -c` counts them all), or raise the limit for the stack (`ulimit -s`).",
  ],
  EACCES: ["this user may not run it", RIGHTS],
  EPERM: ["this user may not run it", RIGHTS],
  ETXTBSY: ["it is being written", "Try again once whatever installs Nix is done."],
  ENOEXEC: ["it is no program for this machine", "Install Nix for this machine's processor."],
  EAGAIN: ["this user has too many processes", "End some, or raise the limit (`ulimit -u`)."],
  EMFILE: ["too many files are open", "Raise the limit (`ulimit -n`)."],
  ENFILE: ["too many files are open on this machine", "Close some programs, then try again."],
  ENOMEM: ["there is no memory for it", "Close some programs, then try again."],
};

function cannotStart(name: string, program: string, cwd: string | undefined, error: unknown): NixcacheError {
  const code = systemCode(error) ?? "";
  if (code === "ENOENT") {
    // It was there a moment ago, so something that it needs is not.
    if (cwd !== undefined && !existsSync(cwd)) {
      return failure(name, `the folder ${cwd} does not exist`, "Name a folder that is there.", error);
    }
    if (!canRead(program)) return failure(name, "it is not in PATH", INSTALL, error);
    const reason = `${program} is there, and what runs it is not`;
    return failure(name, reason, "Install Nix again: its interpreter or loader is missing.", error);
  }
  const [reason, hint] = REASONS[code] ?? [messageOf(error), undefined];
  return failure(name, reason, hint, error);
}

function canRead(file: string): boolean {
  try {
    accessSync(file, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

function failure(name: string, reason: string, hint: string | undefined, cause?: unknown): NixcacheError {
  return new NixcacheError("nix-store", `cannot run \`${name}\`: ${reason}`, {
    ...(hint !== undefined && { hint }),
    cause,
  });
}

/** Runs one of Nix's commands. Injected into the store, so that tests need no Nix. */
import { messageOf, NixcacheError } from "../errors.ts";
import type { Environment } from "./location.ts";

export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * @param signal ends the program at once
 * @throws `nix-store` when the program cannot be started; a failure of the program itself is a result.
 */
export type RunCommand = (
  argv: readonly string[],
  env: Environment,
  signal?: AbortSignal,
) => Promise<CommandResult>;

export const runCommand: RunCommand = async (argv, env, signal) => {
  const [name = ""] = argv;
  const program = Bun.which(name, { PATH: env.PATH ?? "" });
  if (program === null) throw cannotStart(name, "it is not in PATH", undefined);
  let child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  try {
    child = Bun.spawn([program, ...argv.slice(1)], {
      env: { ...env },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      ...(signal && { signal, killSignal: "SIGKILL" }),
    });
  } catch (error) {
    throw cannotStart(name, messageOf(error), error);
  }
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { exitCode, stdout, stderr };
};

export function cannotStart(name: string, reason: string, cause: unknown): NixcacheError {
  return new NixcacheError("nix-store", `cannot run \`${name}\`: ${reason}`, {
    hint: "Install Nix (https://nixos.org/download, on Debian `apt-get install nix-bin`).",
    cause,
  });
}

/** Runs one of Nix's commands. Injected into the store, so that tests need no Nix. */
import type { Environment } from "./location.ts";
import { startProgram } from "./spawn.ts";

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
  const child = startProgram(argv, env, { stdout: "pipe", signal });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { exitCode, stdout, stderr };
};

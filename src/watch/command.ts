/** A command of the person's, which builds: it has the terminal, and the last word on the exit status. */
import { constants } from "node:os";
import { childEnvironment } from "../child-environment.ts";
import { messageOf, NixcacheError } from "../errors.ts";
import type { Environment } from "../nix/location.ts";

/** After the signal, for the command to end by itself. What stops us takes no longer. */
const END_WITHIN_MS = 5_000;

export interface CommandOptions {
  readonly env: Environment;
  readonly cwd?: string;
  /** Ends it with SIGTERM, and if it does not listen with SIGKILL. */
  readonly signal: AbortSignal;
}

/**
 * Runs it with our standard input, output and error.
 *
 * @returns its exit status; 128 and the signal's number when one ended it, as a shell has it
 * @throws `usage` when it cannot be started
 */
export async function runTheirCommand(argv: readonly string[], options: CommandOptions): Promise<number> {
  const { env, signal } = options;
  let child: Bun.Subprocess<"inherit", "inherit", "inherit">;
  try {
    child = Bun.spawn([...argv], {
      env: childEnvironment(env),
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      stdio: ["inherit", "inherit", "inherit"],
    });
  } catch (cause) {
    throw new NixcacheError("usage", `cannot run ${JSON.stringify(argv[0])}: ${messageOf(cause)}`, { cause });
  }
  let killer: Timer | undefined;
  const stop = () => {
    child.kill("SIGTERM");
    killer = setTimeout(() => child.kill("SIGKILL"), END_WITHIN_MS);
  };
  if (signal.aborted) stop();
  else signal.addEventListener("abort", stop, { once: true });
  try {
    await child.exited;
  } finally {
    signal.removeEventListener("abort", stop);
    clearTimeout(killer);
  }
  if (child.signalCode === null) return child.exitCode ?? 1;
  return 128 + constants.signals[child.signalCode as NodeJS.Signals];
}

/** What the scripts share: where the project is, and running other programs. */
import { resolve } from "node:path";

/** The project's folder. */
export const ROOT = resolve(import.meta.dir, "..");

/** What a program prints, trimmed; undefined when it cannot be run or fails. */
export async function outputOf(argv: string[]): Promise<string | undefined> {
  if (Bun.which(argv[0] ?? "") === null) return undefined;
  const child = Bun.spawn(argv, { cwd: ROOT, stdin: "ignore", stdout: "pipe", stderr: "ignore" });
  const [output, exitCode] = await Promise.all([new Response(child.stdout).text(), child.exited]);
  return exitCode === 0 ? output.trim() : undefined;
}

/** Runs a program on the caller's terminal. @returns its exit status; 128 and the number for a signal. */
export async function run(argv: string[], env: Record<string, string> = {}): Promise<number> {
  const child = Bun.spawn(argv, {
    cwd: ROOT,
    env: { ...process.env, ...env },
    stdin: "inherit",
    stdout: "inherit",
    stderr: "inherit",
  });
  return await child.exited;
}

/** The body of a script: an error ends it with its message alone and status 1. */
export async function runScript(body: () => Promise<number | undefined>): Promise<void> {
  try {
    process.exitCode = (await body()) ?? 0;
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}

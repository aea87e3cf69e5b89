/** Runs one of Nix's commands and hands on its standard error line by line, while it runs. */
import type { Environment } from "./location.ts";
import { startProgram } from "./spawn.ts";

/** A longer line is handed on in pieces: a build may write gigabytes without a newline. UTF-16 units. */
const MAX_LINE = 4 * 1024 * 1024;

/** Nix ends its builds at once, but does not listen while it calculates. Milliseconds. */
const STOP_WITHIN_MS = 1_500;

export interface LinesOptions {
  readonly env: Environment;
  readonly cwd?: string | undefined;
  /** Ends the command with SIGTERM, and if it does not listen with SIGKILL soon after. */
  readonly signal?: AbortSignal | undefined;
  /** Whether standard output is kept. */
  readonly keepOutput?: boolean | undefined;
  /** A line of standard error, without its newline. */
  onLine(line: string): void;
  /** The process, once it is started. */
  onStart?(pid: number): void;
}

export interface LinesResult {
  readonly exitCode: number | null;
  /** The signal that ended it, such as `SIGSEGV`. */
  readonly signal: string | null;
  /** Standard output, where it was to be kept; else empty. */
  readonly output: string;
}

/**
 * Runs `argv` without input; its standard output is thrown away unless it shall be kept.
 *
 * @throws `nix-store` when it cannot be started. How it ends is a result, also after the signal fired.
 */
export async function runLines(argv: readonly string[], options: LinesOptions): Promise<LinesResult> {
  const { env, cwd, signal } = options;
  if (signal?.aborted) return { exitCode: null, signal: "SIGTERM", output: "" };
  const child = startProgram(argv, env, { stdout: options.keepOutput ? "pipe" : "ignore", cwd });
  const kept = child.stdout === undefined ? "" : new Response(child.stdout).text();

  options.onStart?.(child.pid);
  let killer: Timer | undefined;
  const stop = () => {
    child.kill("SIGTERM");
    killer = setTimeout(() => child.kill("SIGKILL"), STOP_WITHIN_MS);
  };
  signal?.addEventListener("abort", stop, { once: true });
  try {
    await eachLine(child.stderr, options.onLine);
    await child.exited;
  } finally {
    signal?.removeEventListener("abort", stop);
    clearTimeout(killer);
    // Where `onLine` threw, nobody reads on.
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGTERM");
  }
  const ended = child.signalCode === null ? null : String(child.signalCode);
  return { exitCode: child.exitCode, signal: ended, output: await kept };
}

async function eachLine(stream: ReadableStream<Uint8Array>, onLine: (line: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const pieces = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = pieces.pop() ?? "";
    for (const piece of pieces) onLine(piece);
    if (rest.length > MAX_LINE) {
      onLine(rest);
      rest = "";
    }
  }
  rest += decoder.decode();
  if (rest !== "") onLine(rest);
}

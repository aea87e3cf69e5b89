/** Messages for people, on standard error: standard output belongs to results. */
import { type ConsolaInstance, type ConsolaOptions, createConsola } from "consola";

export type Log = Pick<ConsolaInstance, "info" | "success" | "warn" | "error">;

/** Colours and symbols on a terminal, plain lines elsewhere; NO_COLOR is obeyed by consola's formatter. */
export function createLog(options: { terminal: boolean; colors: boolean }): Log {
  const settings: Partial<ConsolaOptions> & { fancy: boolean } = {
    fancy: options.terminal,
    stdout: process.stderr,
    stderr: process.stderr,
    formatOptions: { date: false, colors: options.colors, compact: true },
  };
  return createConsola(settings);
}

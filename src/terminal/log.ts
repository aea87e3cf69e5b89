/** Messages for people, on standard error: standard output belongs to results. */

import { type ConsolaInstance, type ConsolaOptions, createConsola } from "consola";
import type { StepLog } from "../actions/step-log.ts";
import { redactUrls } from "../redact.ts";

export type Log = Pick<ConsolaInstance, "info" | "success" | "warn" | "error" | "level">;

/** Each says what those before it say, and more. `access` is a line for each request. */
export const LOG_LEVELS = ["error", "warn", "info", "access"] as const;

export type LogLevel = (typeof LOG_LEVELS)[number];

export function isLogLevel(text: string): text is LogLevel {
  return (LOG_LEVELS as readonly string[]).includes(text);
}

/** https://github.com/unjs/consola#log-level */
const CONSOLA_LEVELS: Record<LogLevel, number> = { error: 0, warn: 1, info: 3, access: 3 };

/** Colours and symbols on a terminal, plain lines elsewhere; NO_COLOR is obeyed by consola's formatter. */
export function createLog(options: { terminal: boolean; colors: boolean }): Log {
  const settings: Partial<ConsolaOptions> & { fancy: boolean } = {
    fancy: options.terminal,
    stdout: process.stderr,
    stderr: process.stderr,
    formatOptions: { date: false, colors: options.colors, compact: true },
  };
  return withoutSecrets(createConsola(settings));
}

/** Whatever a message quotes. */
function withoutSecrets(log: ConsolaInstance): Log {
  for (const type of ["info", "success", "warn", "error"] as const) {
    const write = log[type];
    log[type] = Object.assign(
      (...args: unknown[]) =>
        write(...(args.map((arg) => (typeof arg === "string" ? redactUrls(arg) : arg)) as [string])),
      { raw: write.raw },
    );
  }
  return log;
}

const ANNOTATIONS: Readonly<Record<string, "error" | "warning">> = { error: "error", warn: "warning" };

/** In GitHub Actions: errors and warnings are annotations, which the page of the run shows. */
export function createStepLog(step: StepLog): Log {
  return createConsola({
    reporters: [
      {
        log({ type, args }) {
          const level = ANNOTATIONS[type];
          const message = redactUrls(args.map(String).join(" "));
          if (level) step.annotate(level, message, "nixcache");
          else step.text(message);
        },
      },
    ],
  });
}

export function setLevel(log: Log, level: LogLevel): void {
  log.level = CONSOLA_LEVELS[level];
}

/** More than this is not kept for a reader of the log who does not read. */
const MAX_WAITING_BYTES = 1024 * 1024;

/** Plain lines, many a second; while nobody reads them they are left out. */
export function createLineWriter(stream: Pick<NodeJS.WriteStream, "write">) {
  // Of standard error Bun's `writableLength` is always 0.
  let waiting = 0;
  return (line: string): void => {
    if (waiting >= MAX_WAITING_BYTES) return;
    const size = Buffer.byteLength(line) + 1;
    waiting += size;
    stream.write(`${line}\n`, () => {
      waiting -= size;
    });
  };
}

/**
 * The command line: finds the command, runs it, and turns whatever is thrown into one sentence, a hint and an
 * exit code.
 */

import { randomUUID } from "node:crypto";
import { defineCommand, renderUsage, runCommand } from "citty";
import { StepLog } from "./actions/step-log.ts";
import { commands } from "./commands/commands.ts";
import { DESCRIPTION } from "./commands/man.ts";
import { isActions } from "./config.ts";
import { type Context, realHost, threadCount } from "./context.ts";
import { type ErrorCode, EXIT_CODES, messageOf, NixcacheError, systemCode } from "./errors.ts";
import { redactUrls } from "./redact.ts";
import { withoutProxyForLoopback } from "./system/proxy.ts";
import { probeInput } from "./system/standard-input.ts";
import { createLog, createStepLog } from "./terminal/log.ts";
import { VERSION } from "./version.ts";

const main = defineCommand({
  meta: {
    name: "nixcache",
    version: VERSION,
    description: DESCRIPTION,
  },
  subCommands: { ...commands },
});

/** As the person has it; what fetch itself reads knows in addition that a proxy's 127.0.0.1 is not this machine. */
const env = { ...process.env };
Object.assign(process.env, withoutProxyForLoopback(env));
const terminal = process.stderr.isTTY === true && env.TERM !== "dumb" && !env.CI;
const writeLine = (line: string) => void process.stderr.write(`${line}\n`);
const step = isActions(env) ? new StepLog(writeLine, randomUUID()) : undefined;
const log = step ? createStepLog(step) : createLog({ terminal, colors: terminal && !env.NO_COLOR });
const abort = new AbortController();
let stopsItself = false;

/** Characters that are written to standard output at once. */
const OUTPUT_BATCH = 64 * 1024;

/** From the first signal to the end of the process, in milliseconds, unless the command stops by itself. */
const STOP_WITHIN_MS = 2_000;

for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.on(name, () => {
    // The second time the person means it.
    if (abort.signal.aborted) process.exit(EXIT_CODES.interrupted);
    abort.abort(new NixcacheError("interrupted", `stopped by ${name}`));
    // What does not listen (standard input, a command of Nix's) must not keep the process: any moment is safe.
    const end = () => {
      log.error(`stopped by ${name}`);
      process.exit(EXIT_CODES.interrupted);
    };
    if (!stopsItself) setTimeout(end, STOP_WITHIN_MS).unref();
  });
}

// Whoever read our log has gone: that ends nothing.
process.stderr.on("error", () => {});

process.stdout.on("error", (error) => {
  // Whoever read our output has gone, as in `nixcache … | head -1`.
  if (systemCode(error) === "EPIPE") process.exit(process.exitCode ?? 0);
  log.error(`cannot write to standard output: ${messageOf(error)}`);
  process.exit(EXIT_CODES.filesystem);
});

const context: Context = {
  env,
  host: realHost,
  log,
  step,
  signal: abort.signal,
  terminal,
  threads: threadCount(),
  screen: process.stdout.isTTY
    ? { columns: process.stdout.columns || 80, colors: !env.NO_COLOR && env.TERM !== "dumb" }
    : undefined,
  print: (text) => {
    process.stdout.write(`${text}\n`);
  },
  async printAll(lines) {
    for (const batch of batches(lines)) {
      await new Promise<void>((resolve) => process.stdout.write(batch, () => resolve()));
    }
  },
  readStdin: () => Bun.stdin.text(),
  probeStdin: () => probeInput(),
  setExitCode: (code) => {
    process.exitCode = code;
  },
  stopsItself: () => {
    stopsItself = true;
  },
};

/** Lines put together until writing them is worth a call. */
function* batches(lines: Iterable<string>): Generator<string> {
  let batch = "";
  for (const line of lines) {
    batch += `${line}\n`;
    if (batch.length < OUTPUT_BATCH) continue;
    yield batch;
    batch = "";
  }
  if (batch !== "") yield batch;
}

/** What to do next where the error itself does not say. */
const HINTS: Partial<Record<ErrorCode, string>> = {
  usage: "Run it with --help to see what it takes.",
  "nix-store": "Check that Nix works here and that the path is in its store.",
  key: "Make a key with: nixcache keygen NAME",
  filesystem: "Name another place, or make this one a folder that can be written, with room in it.",
  layout: "Name another folder, or a new one: nixcache makes it.",
  corrupt: "Try again; when it stays, copy the cache from a mirror, or publish the same paths to a new one.",
};

/** citty colours its help whoever reads it, and pads its lines beyond the width of a terminal. */
function printUsage(usage: string): void {
  const text = process.stdout.isTTY && !env.NO_COLOR ? usage : Bun.stripANSI(usage);
  context.print(text.replace(/ +$/gm, ""));
}

async function run(raw: readonly string[]): Promise<void> {
  const [name, ...rest] = raw;
  if (name === undefined || name === "--help" || name === "-h" || name === "help") {
    printUsage(await renderUsage(main));
    if (name === undefined) process.exitCode = EXIT_CODES.usage;
    return;
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined) {
    throw new NixcacheError("usage", `unknown command ${JSON.stringify(name)}`, {
      hint: `The commands are ${Object.keys(commands).join(", ")}; nixcache --help describes them.`,
    });
  }
  const options = rest.includes("--") ? rest.slice(0, rest.indexOf("--")) : rest;
  if (options.includes("--help") || options.includes("-h")) {
    printUsage(await renderUsage(command, main));
    return;
  }
  await runCommand(command, { rawArgs: rest, data: context });
}

function report(error: unknown, verbose: boolean): void {
  const isKnown = error instanceof NixcacheError;
  const message = isKnown ? error.message : `a defect in nixcache: ${messageOf(error)}`;
  const hint = isKnown
    ? (error.hint ?? HINTS[error.code])
    : "Run it again with --verbose and report what it prints.";
  // The page of a run in GitHub Actions shows the annotation, and not what stands below it in the log.
  log.error(step && hint ? `${message}\n${hint}` : message);
  if (hint && !step) log.info(hint);
  const cause = redactUrls(Bun.inspect(error));
  if (verbose && step) step.text(cause);
  else if (verbose) writeLine(cause);
  process.exitCode = isKnown ? error.exitCode : EXIT_CODES.internal;
}

const args = process.argv.slice(2);
try {
  await run(args);
} catch (error) {
  report(error, args.includes("--verbose"));
}
// All is done; what is left, such as a file system that hangs, must not keep a stopped process.
if (stopsItself) setTimeout(() => process.exit(), STOP_WITHIN_MS).unref();

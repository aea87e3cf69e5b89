/**
 * Asks a program for credentials: a helper of docker's protocol, or the GitHub command line.
 * https://github.com/docker/docker-credential-helpers#development
 *
 * What a program prints may be a secret, also what it prints of a failure: it is returned and never repeated.
 */
import { helperEnvironment } from "../child-environment.ts";
import { messageOf } from "../errors.ts";

/** Without a value, a variable is not set. */
export type ProgramEnvironment = Readonly<Record<string, string | undefined>>;

export interface ProgramCall {
  readonly command: readonly string[];
  /** On standard input. */
  readonly input: string;
  /** What is secret of it is left out. */
  readonly env: ProgramEnvironment;
  /** Ends the program. */
  readonly signal?: AbortSignal | undefined;
}

export type ProgramResult =
  | { readonly kind: "exited"; readonly exitCode: number; readonly stdout: string }
  | { readonly kind: "missing" }
  /** @property reason without a full stop: `it did not answer within 10 s` */
  | { readonly kind: "failed"; readonly reason: string };

/** Runs a program. Never rejects. */
export type RunProgram = (call: ProgramCall) => Promise<ProgramResult>;

/** People type nothing here: a program that asks a person has no terminal. Milliseconds. */
export const PROGRAM_LIMIT_MS = 10_000;

/** How long output may still come after the program's end, from what it has started. Milliseconds. */
const DRAIN_MS = 1_000;

const MAX_OUTPUT_BYTES = 64 * 1024;

export const runProgram: RunProgram = (call) => runWithin(call, PROGRAM_LIMIT_MS);

/** @param limitMs for everything: a child of the program's may hold its output open for ever */
export async function runWithin(
  { command, input, env, signal }: ProgramCall,
  limitMs: number,
): Promise<ProgramResult> {
  const [name = "", ...rest] = command;
  const program = Bun.which(name, env.PATH === undefined ? {} : { PATH: env.PATH });
  if (program === null) return { kind: "missing" };
  let child: Bun.Subprocess<Buffer, "pipe", "ignore">;
  try {
    child = Bun.spawn([program, ...rest], {
      stdin: Buffer.from(input),
      stdout: "pipe",
      stderr: "ignore",
      // A group of its own, so that what it has started ends with it.
      detached: true,
      env: helperEnvironment(env),
    });
  } catch (error) {
    return { kind: "failed", reason: `it cannot be run (${messageOf(error)})` };
  }
  const late = Promise.withResolvers<string>();
  let timer = setTimeout(() => late.resolve(`it did not answer within ${limitMs / 1000} s`), limitMs);
  const stop = () => late.resolve("it was interrupted");
  signal?.addEventListener("abort", stop, { once: true });
  if (signal?.aborted) stop();
  const output = readOutput(child.stdout, () =>
    late.resolve(`it printed more than ${MAX_OUTPUT_BYTES} bytes`),
  );
  try {
    const ended = await Promise.race([child.exited, late.promise]);
    if (typeof ended === "string") return { kind: "failed", reason: ended };
    clearTimeout(timer);
    timer = setTimeout(() => late.resolve(""), DRAIN_MS);
    const cut = await Promise.race([output.ended, late.promise]);
    if (cut) return { kind: "failed", reason: cut };
    if (child.signalCode !== null) return { kind: "failed", reason: `it was ended by ${child.signalCode}` };
    return { kind: "exited", exitCode: ended, stdout: output.text() };
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
    output.close();
    if (child.exitCode === null && child.signalCode === null) endGroup(child);
    child.unref();
  }
}

interface Output {
  /** Resolves when no more comes. */
  readonly ended: Promise<void>;
  /** What came so far. */
  text(): string;
  close(): void;
}

function readOutput(stream: ReadableStream<Uint8Array>, onTooMuch: () => void): Output {
  const reader = stream.getReader();
  const chunks: Uint8Array[] = [];
  let size = 0;
  const read = async (): Promise<void> => {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      size += value.length;
      if (size > MAX_OUTPUT_BYTES) return onTooMuch();
      chunks.push(value);
    }
  };
  return {
    ended: read().catch(() => {}),
    text: () => Buffer.concat(chunks).toString("utf8"),
    close: () => void reader.cancel().catch(() => {}),
  };
}

function endGroup(child: Pick<Bun.Subprocess, "pid" | "kill">): void {
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    child.kill("SIGKILL");
  }
}

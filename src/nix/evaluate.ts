/** Applies a Nix function to a flake's outputs, or to what a Nix file says, by `nix eval`. */
import { NixcacheError } from "../errors.ts";
import { EXPERIMENTAL } from "./ask.ts";
import { writeExpression } from "./expression-file.ts";
import { refuseTooOld } from "./least-version.ts";
import { type LinesResult, runLines } from "./lines.ts";
import type { Environment } from "./location.ts";
import { MAX_ARGUMENT_BYTES } from "./spawn.ts";

/** Traced when the function is reached. */
const APPLIED = "nixcache-applied";

/** A flake reference, or a file or folder as `nix-build` takes it. */
export type Source = { readonly flake: string } | { readonly file: string };

export interface EvaluateOptions {
  readonly env: Environment;
  /** What relative sources are relative to. Default: the current folder. */
  readonly cwd?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** The system that this machine builds for, such as `x86_64-linux`. */
  readonly system: string;
  /** More arguments for `nix eval`, such as `--accept-flake-config`. */
  readonly extraArgs?: readonly string[] | undefined;
  /** A folder for what is too long to be an argument. */
  readonly temporary: string;
}

export interface Evaluation {
  /** The lines of Nix's error; empty when there was none. */
  readonly error: readonly string[];
  /** The signal that ended it from outside, such as for want of memory. */
  readonly killed?: string;
}

export interface ApplyListener {
  /** A line of standard error before an error, traces among them. */
  onLine(line: string): void;
  /** The process that evaluates. */
  onStart?(pid: number): void;
  /** Ends the evaluation, as `killed`. */
  readonly stop?: AbortSignal;
}

/**
 * Evaluates one source as often as wanted. What a flake says is evaluated purely, as `nix build` does it, and no
 * lock file is written. The value of the function is thrown away: it speaks by `builtins.trace`.
 */
export class Evaluator {
  readonly #source: Source;
  readonly #options: EvaluateOptions;
  /**
   * Whether this Nix knows that a fragment which begins with a dot is no name to search for (2.19 on). One that does
   * not fails before it has applied anything, but not always for saying so.
   */
  #knowsRoot = true;

  /** @throws `usage` when the source would be read as an option. */
  constructor(source: Source, options: EvaluateOptions) {
    const text = "flake" in source ? source.flake : source.file;
    if (text === "" || text.startsWith("-") || ("flake" in source && text.includes("#"))) {
      const what = "flake" in source ? "a flake reference" : "a file";
      throw new NixcacheError("usage", `${JSON.stringify(text)} is not ${what}`);
    }
    this.#source = source;
    this.#options = options;
  }

  /**
   * @throws `nix-store` when Nix cannot be started; the reason of the signal of the options when that fired.
   */
  async apply(expression: string, listener: ApplyListener): Promise<Evaluation> {
    const { signal } = this.#options;
    const error: string[] = [];
    let applied = false;
    const take = (raw: string) => {
      const line = Bun.stripANSI(raw);
      if (line === `trace: ${APPLIED}`) applied = true;
      else if (error.length > 0 || line.startsWith("error:")) error.push(line);
      else listener.onLine(line);
    };
    const marked = `outputs: builtins.trace "${APPLIED}" ((${expression}) outputs)`;
    const result = await this.#evaluate(marked, { ...listener, onLine: take });
    signal?.throwIfAborted();
    if (result.exitCode === 0) return { error: [] };
    // Nix ends itself so, by a stack that is too deep.
    if (result.signal === "SIGSEGV") error.push("error: stack overflow (possible infinite recursion)");
    else if (result.signal !== null || listener.stop?.aborted)
      return { error, killed: result.signal ?? "SIGTERM" };
    if (!applied) refuseTooOld(error.join("\n"));
    if (!applied && this.#knowsRoot && "flake" in this.#source) {
      this.#knowsRoot = false;
      return await this.apply(expression, listener);
    }
    if (error.length === 0) error.push(`error: nix eval failed with status ${result.exitCode}`);
    return { error };
  }

  async #evaluate(expression: string, listener: ApplyListener): Promise<LinesResult> {
    const signals = [this.#options.signal, listener.stop].filter((signal) => signal !== undefined);
    const options = { ...this.#options, ...listener, signal: AbortSignal.any(signals) };
    if (Buffer.byteLength(expression) < MAX_ARGUMENT_BYTES) {
      return await runLines(this.#command(expression), options);
    }
    await using file = await writeExpression(expression, this.#options.temporary);
    return await runLines(this.#command("flake" in this.#source ? file.pure : file.impure), options);
  }

  #command(expression: string): string[] {
    const { system, extraArgs = [] } = this.#options;
    const common = ["--log-format", "raw", "--json", "--apply", expression, ...extraArgs];
    const nix = ["nix", ...EXPERIMENTAL, "eval"];
    if ("file" in this.#source) return [...nix, "--file", this.#source.file, ...common];
    const flake = `${this.#source.flake}#${this.#knowsRoot ? "." : '""'}`;
    // An attribute path without names is searched for in packages.SYSTEM first by a Nix that does not know the root: it
    // finds nothing for a system that is none. What must be built to evaluate is still for the real one.
    const search = ["--system", "none", "--option", "extra-extra-platforms", system];
    return [...nix, flake, "--no-write-lock-file", ...search, ...common];
  }
}

/** A run told as a table: one row for each step, with what came of it and how long it took. */

export interface StepsOutput {
  write(text: string): void;
  /** A terminal shows the step under way, and colours. */
  readonly isTerminal: boolean;
  readonly useColor: boolean;
}

const NAME_WIDTH = 24;
const RESULT_WIDTH = 56;

export class Steps {
  readonly #out: StepsOutput;
  readonly #now: () => number;
  readonly #start: number;

  constructor(out: StepsOutput, now: () => number) {
    this.#out = out;
    this.#now = now;
    this.#start = now();
  }

  /**
   * Runs one step. `body` gives its value and the text for the row.
   *
   * @throws what `body` throws, after a row that says that it failed.
   */
  async step<T>(name: string, body: () => Promise<{ value: T; result: string }>): Promise<T> {
    const start = this.#now();
    if (this.#out.isTerminal) this.#out.write(`… ${name}`);
    try {
      const { value, result } = await body();
      this.#row(this.#paint("32", this.#out.isTerminal ? "✓" : "ok"), name, result, this.#now() - start);
      return value;
    } catch (error) {
      this.#row(this.#paint("31", this.#out.isTerminal ? "✗" : "failed"), name, "", this.#now() - start);
      throw error;
    }
  }

  /** The closing line. */
  end(text: string): void {
    const total = formatDuration(this.#now() - this.#start);
    this.#out.write(`\n${this.#paint("1", text)} (${total} in all)\n`);
  }

  #row(mark: string, name: string, result: string, duration: number): void {
    const time = formatDuration(duration).padStart(7);
    const row = `${mark} ${name.padEnd(NAME_WIDTH)} ${result.padEnd(RESULT_WIDTH)} ${this.#paint("2", time)}`;
    // Back to the start of the line, and what stood there is cleared.
    this.#out.write(`${this.#out.isTerminal ? "\r\x1b[K" : ""}${row}\n`);
  }

  #paint(code: string, text: string): string {
    return this.#out.useColor ? `\x1b[${code}m${text}\x1b[0m` : text;
  }
}

/** `7 ms`, `1.2 s`, `2 min 5 s`, from milliseconds. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

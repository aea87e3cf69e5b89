/**
 * The log of a step of GitHub Actions: commands of ours, and between them text that means nothing to the runner,
 * whatever strangers have put into it. What others print into the same log in between keeps its meaning, but for the
 * time of a group.
 */
import { annotation, GROUP_END, groupStart, type Level, resume, stop } from "./workflow-command.ts";

export class StepLog {
  readonly #write: (lines: string) => void;
  readonly #token: string;
  #inGroup = false;

  /**
   * @param write gets one or more lines, without the last newline
   * @param token that nobody can guess whose words come into the log
   */
  constructor(write: (lines: string) => void, token: string) {
    this.#write = write;
    this.#token = token;
  }

  /** Any text. */
  text(text: string): void {
    this.#write(this.#inGroup ? text : `${stop(this.#token)}\n${text}\n${resume(this.#token)}`);
  }

  annotate(level: Level, message: string, title: string): void {
    const line = annotation(level, message, title);
    this.#write(this.#inGroup ? `${resume(this.#token)}\n${line}\n${stop(this.#token)}` : line);
  }

  /** Text until `endGroup` is folded away. Groups do not nest. */
  startGroup(title: string): void {
    this.#write(`${groupStart(title)}\n${stop(this.#token)}`);
    this.#inGroup = true;
  }

  endGroup(): void {
    this.#inGroup = false;
    this.#write(`${resume(this.#token)}\n${GROUP_END}`);
  }
}

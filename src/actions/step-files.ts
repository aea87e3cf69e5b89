/**
 * The files by which a step tells GitHub Actions what came of it: its outputs, and its part of the job's page.
 * https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands#environment-files
 */
import { appendFileSync, statSync } from "node:fs";
import { messageOf, NixcacheError } from "../errors.ts";

/** Bytes that GitHub takes of one step's summary; of a longer one it shows nothing. */
const MAX_SUMMARY_BYTES = 1024 * 1024;

/**
 * The text of outputs, each in the form for values of several lines.
 *
 * @param delimiter that nobody can guess who has a say in a value
 */
export function formatOutputs(outputs: Readonly<Record<string, string>>, delimiter: string): string {
  return Object.entries(outputs)
    .map(([name, value]) => `${name}<<${delimiter}\n${value}\n${delimiter}\n`)
    .join("");
}

/** @throws `filesystem`: whoever uses the outputs must not go on without them. */
export function appendOutputs(file: string, outputs: string): void {
  try {
    appendFileSync(file, outputs);
  } catch (cause) {
    throw new NixcacheError("filesystem", `cannot write the step's outputs to ${file}: ${messageOf(cause)}`, {
      cause,
    });
  }
}

/**
 * As many of the sections as there is room for, the first ones first.
 *
 * @returns why nothing could be written; undefined when something was. The log says the same as a summary, so a
 * step need not fail for want of it.
 */
export function appendSummary(file: string, sections: readonly string[]): string | undefined {
  try {
    const written = statSync(file, { throwIfNoEntry: false })?.size ?? 0;
    appendFileSync(file, fitting(sections, MAX_SUMMARY_BYTES - written));
    return undefined;
  } catch (error) {
    return `the step summary ${file} cannot be written: ${messageOf(error)}`;
  }
}

const LEFT_OUT = "\nThere is more, in the log: a summary has at most 1 MiB.\n";

/** @param room bytes */
export function fitting(sections: readonly string[], room: number): string {
  if (Buffer.byteLength(sections.join("\n")) <= room) return sections.join("\n");
  let text = "";
  let left = room - Buffer.byteLength(LEFT_OUT);
  for (const section of sections) {
    left -= Buffer.byteLength(section) + 1;
    if (left < 0) break;
    text += `${section}\n`;
  }
  return Buffer.byteLength(text + LEFT_OUT) <= room ? text + LEFT_OUT : "";
}

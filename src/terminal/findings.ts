/** What checks of a set-up have found, for people: a line each, and what mends it below. */
import { printable } from "../errors.ts";
import type { Finding } from "../setup/check.ts";

const NAME_WIDTH = 14;
const STATE_WIDTH = 8;

export function findingLines(findings: readonly Finding[]): string[] {
  return findings.flatMap(({ check, state, text, mend }) => {
    const line = `${state.padEnd(STATE_WIDTH)}${check.padEnd(NAME_WIDTH)}${printable(text)}`;
    return mend === undefined ? [line] : [line, `${"".padEnd(STATE_WIDTH + NAME_WIDTH)}→ ${printable(mend)}`];
  });
}

/** A generation in words. Records are written by strangers: what comes from them is made printable here. */
import type { Generation } from "../cache/index-layer.ts";
import type { PublishRecord } from "../cache/record.ts";
import { generationTime } from "../cache/tags.ts";
import { printable } from "../errors.ts";
import { formatAge, formatTime } from "./format.ts";

/** The longest text of one field that is shown. */
const MAX_LENGTH = 300;

/** Within a line, on a terminal and in the log of GitHub Actions, which looks for commands in it. */
export function shown(text: string): string {
  const short = text.length > MAX_LENGTH ? `${text.slice(0, MAX_LENGTH)}…` : text;
  return printable(short)
    .replaceAll("##[", "##\\u005b")
    .replace(/^(\s*):/, "$1\\u003a");
}

/** Such as `https://github.com/o/r#main for x86_64-linux`. */
export function sourceText({ source, branch, system }: PublishRecord): string {
  const on = branch === undefined || source.endsWith(`#${branch}`) ? "" : ` (${shown(branch)})`;
  return `${shown(source)}${on}${system === undefined ? "" : ` for ${shown(system)}`}`;
}

/** Such as `2026-11-23 17:53 UTC, 3 days ago`, by the clock of whoever published. */
export function timeText({ name }: Pick<Generation, "name">, now: number): string {
  return agoText(generationTime(name), now);
}

export function agoText(ms: number, now: number): string {
  const age = formatAge(now - ms);
  return `${formatTime(ms)}, ${age === "now" ? "just now" : `${age} ago`}`;
}

/** What Nix says went wrong, without the trace around it. */

/** UTF-16 units: reasons stand in tables. */
const MAX_LENGTH = 300;

/** What stands around an error: positions, the way to it, warnings, advice on the command line. */
const AROUND =
  /^(at |…|warning: |\(use '--show-trace'|\(stack trace truncated|Try '.* --help' for more information)/;

/**
 * The first paragraph of the innermost error, on one line. Up to 2.18 Nix writes the error first and positions
 * behind it; later the way to it first, under an `error:` of its own, and the error itself last. The text of an error of
 * several lines begins on the line below `error:`, as that of NixOS' failed assertions does.
 */
export function shortError(lines: readonly string[]): string {
  const texts = lines.map((line) => line.trim());
  const isError = (i: number) => {
    const line = texts[i] ?? "";
    return /^error: *\S/.test(line) || (line === "error:" && !AROUND.test(below(i)));
  };
  const below = (i: number) => texts.slice(i + 1).find((text) => text !== "") ?? "…";
  const start = texts.findLastIndex((_, i) => isError(i));
  if (start < 0) return texts.find((text) => text !== "") ?? "";
  const words: string[] = [];
  const first = (texts[start] ?? "").replace(/^(error: *)+/, "");
  for (const text of [first, ...texts.slice(start + 1)]) {
    if (text === "" && words.length === 0) continue;
    if (text === "" || AROUND.test(text)) break;
    words.push(text);
  }
  const error = words.join(" ");
  return shorten(UNEQUAL.test(error) ? `assertion failed: ${error}` : error);
}

/**
 * How Nix from 2.26 on says that `assert a == b` failed: what differs, such as `an integer with value '1' is not equal
 * to …`. That it was an assertion stands in the trace, and not always.
 */
const UNEQUAL =
  /^(an? )?(integer|float|string|path|boolean|null|list|set|function|external value)\b.* '.*' is not equal to |^attribute names? .*' (is contained in|differs from) /;

/** Why a command of Nix's failed, by all that it wrote to standard error; empty where it did not say. */
export function errorIn(stderr: string): string {
  const lines = withoutBodies(Bun.stripANSI(stderr).split("\n"));
  if (lines.some((line) => line.startsWith("error:"))) return shortError(lines);
  const last = lines.findLast((line) => line.trim() !== "" && !line.startsWith("warning:"));
  return shorten(last?.trim() ?? "");
}

/** Without what servers answered, which Nix shows behind its own words: those may look like Nix's. */
function withoutBodies(lines: readonly string[]): string[] {
  let isBody = false;
  return lines.filter((line) => {
    if (/^(error|warning):/.test(line)) isBody = false;
    else if (line.trim() === "response body:") isBody = true;
    return !isBody;
  });
}

export function shorten(text: string): string {
  return text.length > MAX_LENGTH ? `${text.slice(0, MAX_LENGTH)}…` : text;
}

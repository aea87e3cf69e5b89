/** What Nix says went wrong, without the trace around it. */

/** UTF-16 units: reasons stand in tables. */
const MAX_LENGTH = 300;

/**
 * The first paragraph of the innermost error, on one line. Up to 2.18 Nix writes the error first and positions
 * behind it; later the way to it first, under an `error:` of its own, and the error itself last.
 */
export function shortError(lines: readonly string[]): string {
  const start = lines.findLastIndex((line) => /^\s*error: *\S/.test(line));
  if (start < 0) return lines.map((line) => line.trim()).find((line) => line !== "") ?? "";
  const words = [(lines[start] ?? "").trim().replace(/^(error: *)+/, "")];
  for (const line of lines.slice(start + 1)) {
    const text = line.trim();
    if (text === "" || /^(at |…|\(use '--show-trace'|\(stack trace truncated)/.test(text)) break;
    words.push(text);
  }
  return shorten(words.join(" "));
}

export function shorten(text: string): string {
  return text.length > MAX_LENGTH ? `${text.slice(0, MAX_LENGTH)}…` : text;
}

/**
 * Attribute paths, `packages.x86_64-linux."python3.11"`, and patterns of them.
 *
 * A name that is no plain word stands in quotes, as in the Nix language: `\"`, `\\`, `\n`, `\r`, `\t` and `\$` are one
 * character each. In a pattern `*` stands for any characters of a name and `?` for one, also between quotes, where
 * `\*` and `\?` are the characters themselves; a name that is `**` stands for any number of names. A pattern also
 * means everything below what it names.
 */
import { NixcacheError, preview } from "../errors.ts";

/** Names from the outside in. Any text is a name, the empty one too. */
export type AttributePath = readonly string[];

/** A part of a name as it was written: text, or a wildcard. */
type Piece = { readonly text: string } | { readonly wildcard: "*" | "?" };

/** One step of a path as it was written: a name, or a pattern of names. */
export type Step = { readonly name: string } | { readonly pattern: readonly Piece[] };

/** Any name. */
export const ANY_NAME: Step = { pattern: [{ wildcard: "*" }] };

/** What a name may be written as without quotes. */
const PLAIN = /^[A-Za-z_][A-Za-z0-9_'-]*$/;

const ESCAPED: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t" };

/** The steps of `text`. @throws `usage` when it is no attribute path. */
export function parseSteps(text: string): Step[] {
  const steps = split(text, LANGUAGE);
  if (steps === undefined) throw noPath(text);
  return steps;
}

/**
 * What `text` may mean, the likelier first: names as above, and as Nix's command line reads them, where a backslash
 * between quotes is nothing special.
 *
 * @throws `usage` when it is no attribute path.
 */
export function readings(text: string): Step[][] {
  const own = split(text, LANGUAGE);
  const theirs = text.includes("\\") ? split(text, COMMAND_LINE) : undefined;
  const found = [own, theirs].flatMap((steps) => (steps === undefined ? [] : [steps]));
  if (found.length === 0) throw noPath(text);
  return found;
}

/** How quoted names are written: what stands between quotes, and what a backslash there is. */
interface Quoting {
  readonly quoted: RegExp;
  escaped(character: string): string;
}

const LANGUAGE: Quoting = {
  quoted: /^"((?:[^"\\]|\\.)*)"(?=\.|$)/s,
  escaped: (next) => ESCAPED[next] ?? (/["\\$*?]/.test(next) ? next : `\\${next}`),
};

const COMMAND_LINE: Quoting = { quoted: /^"([^"]*)"(?=\.|$)/, escaped: (next) => `\\${next}` };

function split(text: string, quoting: Quoting): Step[] | undefined {
  const steps: Step[] = [];
  let rest = text;
  for (;;) {
    const [all, inside] = quoting.quoted.exec(rest) ?? [];
    const written = all ?? /^[^".]+(?=\.|$)/.exec(rest)?.[0];
    if (written === undefined) return undefined;
    steps.push(stepOf(inside === undefined ? piecesOf(written) : piecesOf(inside, quoting.escaped)));
    if (rest.length === written.length) return steps;
    rest = rest.slice(written.length + 1);
  }
}

/** @param escaped what a backslash and the character behind it are; without it both are themselves */
function piecesOf(text: string, escaped?: (character: string) => string): Piece[] {
  const pieces: Piece[] = [];
  let plain = "";
  for (let at = 0; at < text.length; at++) {
    const character = text[at] as string;
    const next = text[at + 1];
    if (character === "\\" && escaped && next !== undefined) {
      at++;
      plain += escaped(next);
    } else if (character === "*" || character === "?") {
      pieces.push({ text: plain }, { wildcard: character });
      plain = "";
    } else {
      plain += character;
    }
  }
  return [...pieces, { text: plain }].filter((piece) => !("text" in piece) || piece.text !== "");
}

function stepOf(pieces: readonly Piece[]): Step {
  if (pieces.some((piece) => "wildcard" in piece)) return { pattern: pieces };
  return { name: pieces.map((piece) => ("text" in piece ? piece.text : "")).join("") };
}

function noPath(text: string): NixcacheError {
  return new NixcacheError("usage", `${preview(text)} is not an attribute path`, {
    hint: 'Write names with dots between them, and quote those that have dots: packages.x86_64-linux."a.b".',
  });
}

/** As `parseSteps` reads it, on one line. */
export function formatAttributePath(path: AttributePath): string {
  return path.map((name) => (PLAIN.test(name) ? name : `"${escapeName(name)}"`)).join(".");
}

function escapeName(name: string): string {
  return name
    .replace(/["\\*?]|\$(?=\{)/g, "\\$&")
    .replaceAll("\n", "\\n")
    .replaceAll("\r", "\\r")
    .replaceAll("\t", "\\t");
}

/** Whether it is there or not can be said of the path alone. */
export function isPattern(steps: readonly Step[]): boolean {
  return steps.some((step) => "pattern" in step);
}

/** The texts that blanks separate; between quotes a blank is one of the text. */
export function splitWords(text: string): string[] {
  return text.match(/(?:"(?:[^"\\]|\\.)*"|\S)+/gs) ?? [];
}

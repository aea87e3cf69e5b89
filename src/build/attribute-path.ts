/**
 * Attribute paths as Nix's command line writes them, `packages.x86_64-linux."python3.11"`, and patterns of them:
 * in a name `*` stands for any characters and `?` for one, a name that is `**` for any number of names. A pattern
 * also means everything below what it names.
 */
import { NixcacheError, preview } from "../errors.ts";

/** Names from the outside in. */
export type AttributePath = readonly string[];

/** Between the names in what patterns are matched with: no character of a name that anybody types. */
export const SEPARATOR = "\u0001";

/** The names of `text`. A `*` between quotes is a `*` here, too. @throws `usage` when it is no attribute path. */
export function parseAttributePath(text: string): string[] {
  const names: string[] = [];
  let rest = text;
  for (;;) {
    const [all, quoted, plain] = /^(?:"([^"]*)"|([^".]+))(?=\.|$)/.exec(rest) ?? [];
    const name = quoted ?? plain;
    if (all === undefined || name === undefined || name === "" || name.includes(SEPARATOR)) {
      throw new NixcacheError("usage", `${preview(text)} is not an attribute path`, {
        hint: 'Write names with dots between them, and quote those that have dots: packages.x86_64-linux."a.b".',
      });
    }
    names.push(name);
    if (rest.length === all.length) return names;
    rest = rest.slice(all.length + 1);
  }
}

/** As it is typed after the `#` of `nix build`. */
export function formatAttributePath(path: AttributePath): string {
  return path.map((name) => (/^[A-Za-z_][A-Za-z0-9_'-]*$/.test(name) ? name : `"${name}"`)).join(".");
}

export function isPattern(name: string): boolean {
  return /[*?]/.test(name);
}

/** Extended regular expressions, as `builtins.match` takes them, for paths whose names SEPARATOR joins. */
export interface PathPattern {
  /** What the pattern means: the paths it matches, and those below. */
  readonly meant: string;
  /** Those, and all on the way to them. */
  readonly reached: string;
}

/** @throws `usage` when it is no attribute path. */
export function compilePattern(text: string): PathPattern {
  const names = parseAttributePath(text);
  const below = `(${SEPARATOR}.*)?`;
  let meant = "";
  let separator = "";
  for (const [index, name] of names.entries()) {
    if (name !== "**") {
      meant += separator + namePattern(name);
      separator = SEPARATOR;
    } else if (index === names.length - 1) {
      meant += separator === "" ? ".*" : below;
    } else if (names[index + 1] !== "**") {
      meant += separator === "" ? `(.*${SEPARATOR})?` : below;
    }
  }
  let reached = below;
  for (const [index, name] of [...names.entries()].reverse()) {
    if (name === "**") reached = index === 0 ? ".*" : below;
    else if (index === 0) reached = namePattern(name) + reached;
    else reached = `(${SEPARATOR}${namePattern(name)}${reached})?`;
  }
  return { meant: meant + below, reached };
}

/** The expression for one name. */
export function namePattern(name: string): string {
  const any = `[^${SEPARATOR}]`;
  return name.replace(/[\\^$.|?*+()[\]{}]/g, (character) => {
    if (character === "*") return `${any}*`;
    return character === "?" ? any : `\\${character}`;
  });
}

/**
 * What patterns of attribute paths match: as expressions for `builtins.match`, which decides while Nix evaluates, and
 * as our own, by which it is told afterwards what a pattern has matched.
 */
import type { AttributePath, Step } from "./attribute-path.ts";
import { parseSteps } from "./attribute-path.ts";

/** Between the names in what patterns are matched with; a name that has it gets MARK and another character instead. */
export const SEPARATOR = "\u0001";
export const MARK = "\u0002";

/** Characters of names that are replaced, and by what. */
export const REPLACED = { from: [MARK, SEPARATOR], to: [`${MARK}b`, `${MARK}a`] } as const;

/** Expressions for paths that `joinPath` makes. */
export interface Expressions {
  /** What the pattern means: the paths it matches, and those below. */
  readonly meant: string;
  /** Those, and all on the way to them. */
  readonly reached: string;
}

export interface PathPattern {
  /** As the person wrote it. */
  readonly text: string;
  readonly steps: readonly Step[];
  /** POSIX extended regular expressions over bytes, as `builtins.match` takes them. */
  readonly posix: Expressions;
  means(path: AttributePath): boolean;
  /** Whether the path is on the way to what may be meant, or meant. */
  reaches(path: AttributePath): boolean;
}

/** How a kind of regular expressions writes one character of a name, and a text as it is. */
interface Dialect {
  readonly one: string;
  escape(text: string): string;
}

/**
 * By bytes a character is one of ASCII, or two to four others: two characters of two bytes count as one, which nothing
 * else tells apart there.
 */
const POSIX: Dialect = {
  one: `(${MARK}[ab]|[\u0003-\u007f]|[^\u0001-\u007f]{2,4})`,
  // Where Nix is built with libstdc++, a backslash before a closing bracket is an error.
  escape: (text) => text.replace(/[\\^$.|?*+()[{]/g, "\\$&").replace(/[\]}]/g, "[$&]"),
};
const OURS: Dialect = {
  one: `(${MARK}[ab]|[^${SEPARATOR}${MARK}])`,
  escape: (text) => text.replace(/[\\^$.|?*+()[\]{}]/g, "\\$&"),
};

/** @throws `usage` when it is no attribute path. */
export function compilePattern(text: string): PathPattern {
  const steps = parseSteps(text);
  const own = expressions(steps, OURS);
  const meant = new RegExp(`^(?:${own.meant})$`, "su");
  const reached = new RegExp(`^(?:${own.reached})$`, "su");
  return {
    text,
    steps,
    posix: expressions(steps, POSIX),
    means: (path) => meant.test(joinPath(path)),
    reaches: (path) => path.length === 0 || reached.test(joinPath(path)),
  };
}

/** One text of all names, from which they can be told. */
export function joinPath(path: AttributePath): string {
  return path
    .map((name) => name.replaceAll(MARK, REPLACED.to[0]).replaceAll(SEPARATOR, REPLACED.to[1]))
    .join(SEPARATOR);
}

/** The POSIX expression for one name. */
export function nameExpression(step: Step): string {
  return expressionOf(step, POSIX);
}

function expressions(steps: readonly Step[], dialect: Dialect): Expressions {
  const below = `(${SEPARATOR}.*)?`;
  let meant = "";
  let separator = "";
  for (const [index, step] of steps.entries()) {
    const next = steps[index + 1];
    if (!isDeep(step)) {
      meant += separator + expressionOf(step, dialect);
      separator = SEPARATOR;
    } else if (next === undefined) {
      meant += separator === "" ? ".*" : below;
    } else if (!isDeep(next)) {
      meant += separator === "" ? `(.*${SEPARATOR})?` : below;
    }
  }
  let reached = below;
  for (const [index, step] of [...steps.entries()].reverse()) {
    if (isDeep(step)) reached = index === 0 ? ".*" : below;
    else if (index === 0) reached = expressionOf(step, dialect) + reached;
    else reached = `(${SEPARATOR}${expressionOf(step, dialect)}${reached})?`;
  }
  return { meant: meant + below, reached };
}

/** `**`, which stands for any number of names. */
function isDeep(step: Step): boolean {
  return (
    "pattern" in step &&
    step.pattern.length === 2 &&
    step.pattern.every((piece) => "wildcard" in piece && piece.wildcard === "*")
  );
}

function expressionOf(step: Step, dialect: Dialect): string {
  const pieces = "name" in step ? [{ text: step.name }] : step.pattern;
  return pieces
    .map((piece) => {
      if ("text" in piece) return dialect.escape(joinPath([piece.text]));
      return piece.wildcard === "*" ? `[^${SEPARATOR}]*` : dialect.one;
    })
    .join("");
}

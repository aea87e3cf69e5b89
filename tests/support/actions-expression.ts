/**
 * Expressions of GitHub Actions, as far as our workflows have them; what else there is fails loudly.
 * https://docs.github.com/en/actions/reference/workflows-and-actions/expressions
 */

export type Value = string | number | boolean | null | { readonly [name: string]: Value };

export interface Scope {
  /** `github`, `needs` and the like. */
  readonly contexts: Readonly<Record<string, Value>>;
  /** Contexts whose properties are empty where they are not set; of the others each must be there. */
  readonly open: readonly string[];
  /** `success` and the like. */
  readonly functions: Readonly<Record<string, () => Value>>;
}

/** A text with `${{ }}` in it. */
export function interpolate(text: string, scope: Scope): string {
  return text.replace(/\$\{\{(.*?)\}\}/gs, (_, expression: string) => show(evaluate(expression, scope)));
}

export function isTrue(value: Value): boolean {
  return value !== null && value !== false && value !== 0 && value !== "";
}

export function evaluate(expression: string, scope: Scope): Value {
  const tokens = expression.match(/'(?:[^']|'')*'|\d+|[\w-]+|&&|\|\||==|!=|[!().]|\S/g) ?? [];
  let at = 0;
  const fail = (): never => {
    throw new Error(
      `expression ${JSON.stringify(expression)}: cannot read ${JSON.stringify(tokens[at] ?? "its end")}`,
    );
  };
  const next = (token: string) => tokens[at] === token && ++at > 0;

  const or = (): Value => {
    let value = and();
    while (next("||")) {
      const other = and();
      value = isTrue(value) ? value : other;
    }
    return value;
  };
  const and = (): Value => {
    let value = equal();
    while (next("&&")) {
      const other = equal();
      value = isTrue(value) ? other : value;
    }
    return value;
  };
  const equal = (): Value => {
    const left = unary();
    if (next("==")) return isEqual(left, unary());
    return next("!=") ? !isEqual(left, unary()) : left;
  };
  const unary = (): Value => {
    if (next("!")) return !isTrue(unary());
    if (next("(")) {
      const value = or();
      return next(")") ? value : fail();
    }
    return primary();
  };
  const primary = (): Value => {
    const token = tokens[at] ?? fail();
    if (token.startsWith("'")) {
      at++;
      return token.slice(1, -1).replaceAll("''", "'");
    }
    if (/^\d+$/.test(token)) return Number(tokens[at++]);
    if (token === "true" || token === "false") return tokens[at++] === "true";
    if (!/^[A-Za-z_]/.test(token)) return fail();
    at++;
    if (next("(")) {
      const call = scope.functions[token];
      if (call === undefined || !next(")")) return fail();
      return call();
    }
    return property(token);
  };
  const property = (context: string): Value => {
    let value: Value = scope.contexts[context] ?? fail();
    let name = context;
    while (next(".")) {
      const key = tokens[at++] ?? fail();
      name += `.${key}`;
      const inside: Value | undefined = typeof value === "object" ? value?.[key] : undefined;
      if (inside === undefined && !scope.open.includes(context)) throw new Error(`${name} is not known here`);
      value = inside ?? null;
    }
    return value;
  };

  const value = or();
  return at === tokens.length ? value : fail();
}

function isEqual(left: Value, right: Value): boolean {
  if (typeof left === "object" || typeof right === "object") return show(left) === show(right);
  // Texts are compared without regard to case.
  if (typeof left === "string" && typeof right === "string")
    return left.toLowerCase() === right.toLowerCase();
  if (typeof left === typeof right) return left === right;
  throw new Error(`cannot compare ${JSON.stringify(left)} with ${JSON.stringify(right)}`);
}

function show(value: Value): string {
  if (value === null) return "";
  if (typeof value === "object") throw new Error("an object in the place of a text");
  return String(value);
}

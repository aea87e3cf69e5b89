/** The texts in our sources: what the binary may print. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Node, parse } from "acorn";
import { ROOT } from "../../scripts/process.ts";

/** Of a name as of a text behind it, what stands there for anything. */
export const ANYTHING = "…";

interface AnyNode extends Node {
  readonly [name: string]: unknown;
}

const transpiler = new Bun.Transpiler({ loader: "ts", inline: false, deadCodeElimination: false });

export interface Sources {
  /** All texts, with `…` for what is put in. */
  readonly texts: readonly string[];
  /** Those that are given as hints. */
  readonly hints: readonly string[];
  /** Messages of errors with the code that they are made with, where both stand in one place. */
  readonly errors: readonly (readonly [code: string, message: string])[];
}

export function readSources(): Sources {
  const files = new Bun.Glob("**/*.ts").scanSync({ cwd: join(ROOT, "src") });
  const trees = [...files].map((file) => parseSource(readFileSync(join(ROOT, "src", file), "utf8")));
  return {
    texts: [...new Set(trees.flatMap(textsIn).map((text) => text.trim()))],
    hints: hintsIn(trees),
    errors: errorsIn(trees),
  };
}

export function parseSource(text: string): Node {
  // A macro would run.
  const script = transpiler.transformSync(text.replaceAll(' with { type: "macro" }', ""));
  return parse(script, { ecmaVersion: "latest", sourceType: "module" });
}

/** Texts with `…` in the place of what is put in; those inside of it come as texts of their own. */
export function textsIn(tree: Node): string[] {
  const found: string[] = [];
  walk(tree, (node) => {
    const text = textOf(node);
    if (text !== undefined) found.push(text);
  });
  return found;
}

/**
 * What is given as a `hint`, or by the name of one: a property, a variable, a parameter's default, the argument for a
 * parameter of that name, or whatever a function called `hint…` has in it.
 */
export function hintsIn(trees: readonly Node[]): string[] {
  const found = new Set<string>();
  const take = (value: unknown) => {
    for (const text of outermostTexts(value as AnyNode)) found.add(text.trim());
  };
  /** By function, the place of its parameter. */
  const places = new Map<string, number>();
  walk(trees, (node) => {
    if (node.type === "Property" && isHint(node.key)) take(node.value);
    if (node.type === "VariableDeclarator" && isHint(node.id)) take(node.init);
    if (node.type === "AssignmentPattern" && isHint(node.left)) take(node.right);
    if (node.type !== "FunctionDeclaration") return;
    if (isHint(node.id)) take(node.body);
    const place = (node.params as AnyNode[]).findIndex((param) => isHint(param) || isHint(param.left));
    if (place >= 0) places.set((node.id as unknown as { name: string }).name, place);
  });
  walk(trees, (node) => {
    if (node.type !== "CallExpression") return;
    const place = places.get((node.callee as { name?: string }).name ?? "");
    if (place !== undefined) take((node.arguments as AnyNode[])[place]);
  });
  // Words that a hint is put together of are none by themselves, nor is what goes on in the middle of a line.
  const isSentence = (text: string) => /[.)]$/.test(text) || text.split(" ").length > 3;
  return [...found].filter((text) => isSentence(text) && /^[\p{L}…]/u.test(text));
}

function isHint(node: unknown): boolean {
  return /^(hints?|HINTS?|hint[A-Z]\w*)$/.test((node as { name?: string } | null)?.name ?? "");
}

function errorsIn(trees: readonly Node[]): [code: string, message: string][] {
  const found: [code: string, message: string][] = [];
  walk(trees, (node) => {
    if (node.type !== "NewExpression" || (node.callee as { name?: string }).name !== "NixcacheError") return;
    const [code, message] = node.arguments as AnyNode[];
    if (code === undefined || typeof code.value !== "string") return;
    for (const text of outermostTexts(message)) found.push([code.value, text.trim()]);
  });
  return found;
}

/** The codes of errors that may say so; none where a function of several errors has made it. */
export function codesOf(message: string, { errors }: Pick<Sources, "errors">): ReadonlySet<string> {
  const pattern = patternOf(message);
  return new Set(errors.flatMap(([code, text]) => (pattern.test(text) ? code : [])));
}

/** Whether the binary may print `message`, where `…` stands for anything and the rest for itself. */
export function isPrinted(message: string, { texts }: Pick<Sources, "texts">): boolean {
  const pattern = patternOf(message);
  return texts.some((text) => pattern.test(text));
}

export function patternOf(message: string): RegExp {
  return new RegExp(`^${message.split(ANYTHING).map(RegExp.escape).join("[\\s\\S]*")}$`);
}

function textOf(node: AnyNode): string | undefined {
  if (node.type === "Literal" && typeof node.value === "string") return node.value;
  if (node.type !== "TemplateLiteral") return undefined;
  const quasis = node.quasis as { value: { cooked: string } }[];
  return quasis.map(({ value }) => value.cooked).join(ANYTHING);
}

function outermostTexts(node: AnyNode | undefined): string[] {
  const found: string[] = [];
  walk(node, (inner) => {
    const text = textOf(inner);
    if (text === undefined) return true;
    found.push(text);
    return false;
  });
  return found;
}

/** @param visit answers false for a node whose inside does not matter */
function walk(value: unknown, visit: (node: AnyNode) => unknown): void {
  if (typeof value !== "object" || value === null) return;
  if (Array.isArray(value)) {
    for (const item of value) walk(item, visit);
    return;
  }
  const node = value as AnyNode;
  if (typeof node.type === "string" && visit(node) === false) return;
  for (const [name, inner] of Object.entries(node)) if (name !== "type") walk(inner, visit);
}

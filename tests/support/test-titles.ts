/** The titles of a test file: of the tests that run, whether by themselves or for each row of a table. */
import type { Node } from "acorn";
import { parseSource, textsIn } from "./source-texts.ts";

interface AnyNode extends Node {
  readonly [name: string]: unknown;
}

/** `test`, `describe` and what is called like them, such as `describeWith`. */
const CALLED = /^(test|describe)([A-Z]\w*)?$/;

/** What keeps a test from running, whatever the machine has. */
const NEVER = new Set(["skip", "todo", "failing"]);

/**
 * Titles of tests and of groups of tests, with `…` for what is put in, and the texts of tables that tests are made of.
 * Nothing of what is skipped, and nothing that stands in a comment.
 */
export function titlesIn(source: string): string[] {
  const tree = parseSource(source) as AnyNode;
  const variables = new Map<string, AnyNode>();
  visit(tree, (node) => {
    const name = (node.id as { name?: string } | null)?.name;
    if (node.type === "VariableDeclarator" && name !== undefined && node.init)
      variables.set(name, node.init as AnyNode);
    return true;
  });
  const titles: string[] = [];
  visit(tree, (node) => {
    const call = node.type === "CallExpression" ? readCall(node) : undefined;
    if (call === undefined) return true;
    if (call.chain.some((name) => NEVER.has(name))) return false;
    for (const argument of node.arguments as AnyNode[])
      if (isText(argument)) titles.push(...textsIn(argument));
    for (const table of call.tables) titles.push(...textsOfTable(table, variables, new Set()));
    return true;
  });
  return titles;
}

/** Whether one of the titles has the words of a name, in their order; `…` in the name stands for anything. */
export function hasTitle(titles: readonly string[], name: string): boolean {
  const words = name.split("…").map((piece) => piece.trim());
  return titles.some((title) => {
    let at = 0;
    return words.every((piece) => {
      const found = title.indexOf(piece, at);
      at = found + piece.length;
      return found >= 0;
    });
  });
}

/** Of `test.each(TABLE)(title, …)` or `describe.skipIf(…)(title, …)` the names on the way, and the tables. */
function readCall(node: AnyNode): { chain: string[]; tables: AnyNode[] } | undefined {
  const chain: string[] = [];
  const tables: AnyNode[] = [];
  let callee = node.callee as AnyNode;
  for (;;) {
    if (callee.type === "Identifier") {
      return CALLED.test(callee.name as string) ? { chain, tables } : undefined;
    }
    if (callee.type === "MemberExpression") {
      const { name = "" } = callee.property as { name?: string };
      chain.push(name);
      callee = callee.object as AnyNode;
    } else if (callee.type === "CallExpression") {
      if ((callee.callee as { property?: { name?: string } }).property?.name === "each")
        tables.push(...(callee.arguments as AnyNode[]));
      callee = callee.callee as AnyNode;
    } else return undefined;
  }
}

function isText({ type, value }: AnyNode): boolean {
  return type === "TemplateLiteral" || (type === "Literal" && typeof value === "string");
}

/** Texts in a table, and in the tables that it is put together of. */
function textsOfTable(table: AnyNode, variables: ReadonlyMap<string, AnyNode>, seen: Set<string>): string[] {
  const texts = textsIn(table);
  visit(table, (node) => {
    const name = node.type === "Identifier" ? (node.name as string) : undefined;
    const other = name === undefined || seen.has(name) ? undefined : variables.get(name);
    if (name === undefined || other === undefined) return true;
    seen.add(name);
    texts.push(...textsOfTable(other, variables, seen));
    return true;
  });
  return texts;
}

/** @param look answers whether to go on into a node */
function visit(node: unknown, look: (node: AnyNode) => boolean): void {
  if (Array.isArray(node)) {
    for (const each of node) visit(each, look);
    return;
  }
  if (typeof node !== "object" || node === null || typeof (node as AnyNode).type !== "string") return;
  if (!look(node as AnyNode)) return;
  for (const value of Object.values(node)) if (typeof value === "object") visit(value, look);
}

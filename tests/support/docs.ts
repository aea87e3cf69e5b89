/** The pages that people read, cut into what tests look at. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { lexer, type Token, type Tokens } from "marked";
import { ROOT } from "../../scripts/process.ts";

export interface Block {
  /** `docs/signing.md:12`, where it begins. Inside a list it is the line of the list. */
  readonly at: string;
  /** The first word behind the fence; empty where there is none. */
  readonly language: string;
  readonly text: string;
}

export interface Span {
  readonly at: string;
  readonly text: string;
}

export interface Page {
  /** Relative to the repository, such as `docs/README.md`. */
  readonly file: string;
  readonly text: string;
  readonly blocks: readonly Block[];
  /** Code inside a line. */
  readonly spans: readonly Span[];
  /** Targets of links and images. */
  readonly links: readonly Span[];
  readonly headings: readonly Span[];
  /** Of all tables, without their heads. */
  readonly rows: readonly Row[];
}

export interface Row {
  /** The heading that the table stands under. */
  readonly under: string;
  /** As Markdown. */
  readonly cells: readonly string[];
  /** What is code in each cell. */
  readonly code: readonly (readonly string[])[];
}

export const PAGES: readonly Page[] = [
  "README.md",
  "CONTRIBUTING.md",
  "SECURITY.md",
  "CHANGELOG.md",
  ...readdirSync(join(ROOT, "docs"))
    .filter((name) => name.endsWith(".md"))
    .sort()
    .map((name) => `docs/${name}`),
].map((file) => readPage(file, readFileSync(join(ROOT, file), "utf8")));

/** @throws when there is no such page */
export function page(file: string): Page {
  const found = PAGES.find((page) => page.file === file);
  if (found === undefined) throw new Error(`there is no page ${file}`);
  return found;
}

export function readPage(file: string, text: string): Page {
  const blocks: Block[] = [];
  const spans: Span[] = [];
  const links: Span[] = [];
  const headings: Span[] = [];
  const rows: Row[] = [];
  let under = "";
  const walk = (tokens: readonly Token[], at: string) => {
    for (const token of tokens) {
      if (token.type === "code") {
        const [language = ""] = (token.lang ?? "").split(/\s/);
        blocks.push({ at, language, text: token.text });
      } else if (token.type === "codespan") spans.push({ at, text: token.text });
      else if (token.type === "heading") {
        headings.push({ at, text: token.text });
        under = token.text;
      } else if (token.type === "link" || token.type === "image") links.push({ at, text: token.href });
      else if (token.type === "html") {
        for (const [, target = ""] of token.text.matchAll(/(?:src|srcset|href)="([^"]*)"/g))
          links.push({ at, text: target });
      } else if (token.type === "table") {
        const { header, rows: body } = token as Tokens.Table;
        for (const row of body) {
          const code = row.map(({ tokens }) =>
            tokens.flatMap((token) => (token.type === "codespan" ? token.text : [])),
          );
          rows.push({ under, cells: row.map(({ text }) => text), code });
        }
        for (const cell of [...header, ...body.flat()]) walk(cell.tokens, at);
      } else if (token.type === "list") for (const item of token.items) walk(item.tokens, at);
      if ("tokens" in token && token.tokens) walk(token.tokens, at);
    }
  };
  let line = 1;
  for (const token of lexer(text)) {
    walk([token], `${file}:${line}`);
    line += token.raw.split("\n").length - 1;
  }
  return { file, text, blocks, spans, links, headings, rows };
}

/** What GitHub makes of a heading for links to it. */
export function anchor(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\p{M} _-]/gu, "")
    .replaceAll(" ", "-");
}

/** Standard output where a person reads it. */
import { styleText } from "node:util";

export interface Screen {
  /** Characters in a line. */
  readonly columns: number;
  readonly colors: boolean;
}

export type Style = "bold" | "dim" | "green" | "red" | "yellow";

/** Colours text; without a screen, or on one without colours, it stays as it is. */
export type Paint = (style: Style, text: string) => string;

export function painter(screen: Screen | undefined): Paint {
  if (!screen?.colors) return (_, text) => text;
  return (style, text) => styleText(style, text, { validateStream: false });
}

/** As many of the items, with commas between them, as fit into a width, and one at least; the rest is counted. */
export function fitting(items: readonly string[], width: number): string {
  const all = items.join(", ");
  if (Bun.stringWidth(all) <= width) return all;
  const [first = "", ...others] = items;
  let text = first;
  for (const [place, item] of others.entries()) {
    const longer = `${text}, ${item}`;
    const rest = others.length - place - 1;
    if (Bun.stringWidth(longer + moreText(rest)) > width) return text + moreText(rest + 1);
    text = longer;
  }
  return text;
}

function moreText(count: number): string {
  return count === 0 ? "" : `, … ${count} more`;
}

/** A sentence cut into lines of the screen, each behind an indent; elsewhere it is one line. */
export function sentence(text: string, indent: string, screen: Screen | undefined): string[] {
  const width = (screen?.columns ?? Number.POSITIVE_INFINITY) - indent.length;
  const wrapped = Number.isFinite(width) ? Bun.wrapAnsi(text, Math.max(20, width)) : text;
  return wrapped.split("\n").map((line) => indent + line);
}

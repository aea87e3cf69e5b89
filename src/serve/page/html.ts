/** HTML in which a value is text: a template that escapes what is put into it, unless that is HTML itself. */

export interface Html {
  readonly html: string;
}

export type HtmlValue = string | number | Html | readonly Html[] | undefined;

export function html(texts: TemplateStringsArray, ...values: HtmlValue[]): Html {
  let result = texts[0] ?? "";
  values.forEach((value, index) => {
    result += render(value) + (texts[index + 1] ?? "");
  });
  return { html: result };
}

function render(value: HtmlValue): string {
  if (value === undefined) return "";
  if (typeof value === "string" || typeof value === "number") return escapeHtml(String(value));
  return "html" in value ? value.html : value.map(render).join("");
}

const ESCAPES: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => ESCAPES[character] as string);
}

/** Making elements, and asking the server. Texts are set as text: what they hold is never markup. */

export type Child = Node | string | null;

/** An element with attributes; `undefined` leaves one out. */
export function element<K extends keyof HTMLElementTagNameMap>(
  name: K,
  attributes: Record<string, string | undefined> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(name);
  setAttributes(made, attributes);
  append(made, children);
  return made;
}

export function svg(
  name: string,
  attributes: Record<string, string | number>,
  ...children: Child[]
): SVGElement {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  setAttributes(made, attributes);
  append(made, children);
  return made;
}

function setAttributes(target: Element, attributes: Record<string, string | number | undefined>): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) target.setAttribute(name, String(value));
  }
}

function append(target: Element, children: readonly Child[]): void {
  target.append(...children.filter((child) => child !== null));
}

/** An element of the document that the server made. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`there is no #${id}`);
  return found as T;
}

/** Sets a text only when it is another, so that selections and screen readers are left alone. */
export function setText(target: Element, text: string): void {
  if (target.textContent !== text) target.textContent = text;
}

/** A link to a place elsewhere; the server lets http and https through alone. */
export function link(url: string, text: string): HTMLAnchorElement {
  return element("a", { href: url, rel: "noopener noreferrer", target: "_blank" }, text);
}

/** What the server answers to `_page/NAME`. @throws when it cannot be reached or has nothing */
export async function ask<T>(name: string, query: Record<string, string>, signal?: AbortSignal): Promise<T> {
  const init = signal === undefined ? {} : { signal };
  const response = await fetch(`_page/${name}?${new URLSearchParams(query)}`, init);
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  return (await response.json()) as T;
}

/** What is shown in place of something that could not be had. */
export function problem(error: unknown): HTMLElement {
  const reason = error instanceof Error ? error.message : String(error);
  return element(
    "p",
    { class: "note" },
    `This could not be loaded: ${reason}. It is tried again when you ask again.`,
  );
}

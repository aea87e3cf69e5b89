/** The publishes, the newest first: from what, by which run, and the closures of their roots. */
import type { ClosureData, Publish, PublishesPage, Root } from "./data.ts";
import { ask, byId, type Child, element, link, problem } from "./dom.ts";
import { formatCount, formatSize, plural } from "./format.ts";
import { timeElement } from "./overview.ts";

/** Names in the title of a publish. */
const TITLE_ROOTS = 3;

/** @returns what shows the publishes anew */
export function startPublishes(cache: () => string): () => void {
  const list = byId("publish-list");
  const more = byId<HTMLButtonElement>("more-publishes");
  let next: string | null = null;
  let asked = 0;

  async function load(before?: string): Promise<void> {
    const question = ++asked;
    try {
      const query = { cache: cache(), ...(before !== undefined && { before }) };
      const page = await ask<PublishesPage>("publishes", query);
      if (question !== asked) return;
      next = page.next;
      more.hidden = next === null;
      const shown = page.publishes.map((publish) => publishElement(publish, cache()));
      if (before === undefined) {
        shown[0]?.setAttribute("open", "");
        list.replaceChildren(...(shown.length > 0 ? shown : [nothing()]));
      } else {
        list.append(...shown);
        shown[0]?.querySelector("summary")?.focus();
      }
    } catch (error) {
      if (before === undefined) list.replaceChildren(problem(error));
    }
  }

  more.addEventListener("click", () => void load(next ?? undefined));
  void load();
  return () => void load();
}

function nothing(): HTMLElement {
  return element("p", { class: "nothing" }, "Nothing has been published yet.");
}

function publishElement(publish: Publish, cache: string): HTMLElement {
  const { time, system, revision, rootCount, entries } = publish;
  return element(
    "details",
    { class: "publish" },
    element(
      "summary",
      {},
      element(
        "span",
        { class: "when" },
        time === null ? "at an unknown time" : timeElement(time, Date.now()),
      ),
      element("span", { class: "what" }, title(publish)),
      revision === null ? null : element("code", {}, revision.slice(0, 10)),
      element("span", { class: "muted" }, plural(entries, "path")),
    ),
    element(
      "dl",
      { class: "record" },
      ...pair("Source", publish.source === "paths" ? null : publish.source),
      ...pair("System", system),
      ...pair("Commit", revision === null ? null : commit(publish, revision)),
      ...pair("Run", publish.runUrl === null ? null : link(publish.runUrl, shortUrl(publish.runUrl))),
      ...pair("By", publish.tool),
    ),
    rootCount === 0 ? null : element("p", { class: "roots-title" }, plural(rootCount, "root")),
    ...publish.roots.map((root) => rootElement(root, cache)),
    rootCount > publish.roots.length
      ? element("p", { class: "muted" }, `and ${plural(rootCount - publish.roots.length, "more root")}`)
      : null,
  );
}

/** What was published: the names of its outputs, where there are not many. */
function title({ roots, rootCount }: Publish): string {
  if (rootCount === 0) return "store paths";
  const names = roots.slice(0, TITLE_ROOTS).map(({ attribute, path }) => {
    return attribute.startsWith("/") ? path.replace(/^\/nix\/store\/[^-]*-/, "") : attribute;
  });
  const more = rootCount - names.length;
  return names.join(", ") + (more > 0 ? ` and ${formatCount(more)} more` : "");
}

function pair(name: string, value: Child): HTMLElement[] {
  return value === null || value === "" ? [] : [element("dt", {}, name), element("dd", {}, value)];
}

function commit({ revisionUrl }: Publish, revision: string): Child {
  const text = element("code", {}, revision);
  if (revisionUrl === null) return text;
  const to = link(revisionUrl, "");
  to.append(text);
  return to;
}

function shortUrl(url: string): string {
  return url.replace(/^https?:\/\//, "");
}

/** A root, with its closure once it is opened. */
function rootElement({ attribute, path, hash }: Root, cache: string): HTMLElement {
  const named = attribute === path ? null : element("b", {}, attribute);
  const title = element("code", { class: "path" }, path);
  if (hash === null) return element("p", { class: "root" }, named, title);
  const body = element(
    "div",
    { class: "closure" },
    element("p", { class: "muted" }, "Walking the references …"),
  );
  const root = element("details", { class: "root" }, element("summary", {}, named, title), body);
  let loaded = false;
  root.addEventListener("toggle", async () => {
    if (!root.open || loaded) return;
    loaded = true;
    try {
      body.replaceChildren(...closure(await ask<ClosureData>("closure", { cache, hash })));
    } catch (error) {
      loaded = false;
      body.replaceChildren(problem(error));
    }
  });
  return root;
}

function closure({ paths, narSize, fileSize, elsewhere, cut, largest }: ClosureData): HTMLElement[] {
  const sizes = `${cut ? "More than " : ""}${plural(paths, "path")}, ${formatSize(narSize)} unpacked, ${formatSize(fileSize)} compressed`;
  const upstream =
    elsewhere === 0 ? "." : `; ${plural(elsewhere, "reference")} to what upstream caches have.`;
  const rows = largest.map((path) =>
    element(
      "li",
      {},
      element("span", {}, path.name),
      element("span", { class: "size" }, formatSize(path.narSize)),
    ),
  );
  const shown =
    largest.length < paths ? `The ${formatCount(largest.length)} largest` : "Its paths, the largest first";
  return [
    element("p", {}, sizes + upstream),
    element("p", { class: "muted" }, shown),
    element("ol", { class: "plain largest", tabindex: "0", "aria-label": shown }, ...rows),
  ];
}

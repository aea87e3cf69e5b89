/** The store paths: search, and the table, page by page. */
import type { PathRow, PathsPage } from "./data.ts";
import { ask, byId, element, problem, setText } from "./dom.ts";
import { formatSize, plural, splitName } from "./format.ts";
import { timeElement } from "./overview.ts";

/** Between two keys of somebody who types. */
const TYPING_MS = 150;
const COUNTING_MS = 1_000;

const COLUMNS = ["Name", "Version", "Unpacked", "Compressed", "Added"];

/** @returns what shows the paths anew */
export function startPaths(cache: () => string): () => void {
  const search = byId<HTMLInputElement>("search");
  const more = byId<HTMLButtonElement>("more-paths");
  const list = byId("path-list");
  let next: string | null = null;
  let asking = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;

  async function load(after?: string): Promise<void> {
    clearTimeout(timer);
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    const query = { cache: cache(), search: search.value.trim(), ...(after !== undefined && { after }) };
    list.setAttribute("aria-busy", "true");
    try {
      show(await ask<PathsPage>("paths", query, signal), query.search, after !== undefined);
    } catch (error) {
      if (signal.aborted) return;
      list.replaceChildren(problem(error));
    }
    list.removeAttribute("aria-busy");
  }

  function show(page: PathsPage, text: string, isMore: boolean): void {
    if (page.counted < 1) {
      setText(byId("matches"), `Reading the names: ${Math.floor(page.counted * 100)} %`);
      timer = setTimeout(load, COUNTING_MS);
      return;
    }
    next = page.next;
    more.hidden = next === null;
    setText(byId("matches"), text === "" ? "" : `${plural(page.matches, "path")} found`);
    const rows = page.paths.map(row);
    const body = list.querySelector("tbody");
    if (isMore && body) {
      body.append(...rows);
      // Whoever asked for more by the keyboard goes on with what came.
      rows[0]?.querySelector("th")?.focus();
      return;
    }
    list.replaceChildren(rows.length > 0 ? table(rows) : nothing(text));
  }

  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(load, TYPING_MS);
  });
  more.addEventListener("click", () => void load(next ?? undefined));
  void load();
  return () => void load();
}

/** The roles say again what the elements are: as blocks, on narrow screens, they would lose them. */
function table(rows: readonly HTMLElement[]): HTMLElement {
  const heads = COLUMNS.map((name) => element("th", { scope: "col", role: "columnheader" }, name));
  return element(
    "table",
    { role: "table", "aria-label": "Store paths" },
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...heads)),
    element("tbody", { role: "rowgroup" }, ...rows),
  );
}

function row({ hash, name: full, narSize, fileSize, added }: PathRow): HTMLElement {
  const { name, version } = splitName(full);
  const cell = (label: string, ...children: (Node | string)[]) =>
    element("td", { role: "cell", "data-label": label }, ...children);
  return element(
    "tr",
    { role: "row" },
    element(
      "th",
      { scope: "row", role: "rowheader", tabindex: "-1" },
      name,
      element("code", { class: "path" }, `/nix/store/${hash}-${full}`),
    ),
    cell("Version", version),
    cell("Unpacked", formatSize(narSize)),
    cell("Compressed", formatSize(fileSize)),
    cell("Added", timeElement(added, Date.now())),
  );
}

function nothing(text: string): HTMLElement {
  return text === ""
    ? element(
        "p",
        { class: "nothing" },
        "Nothing is in this cache yet. ",
        element("code", {}, "nixcache publish ./result"),
        " puts a build and its closure into it.",
      )
    : element("p", { class: "nothing" }, `No name has “${text}” in it.`);
}

/** The files of the page, by the names under which the page asks for them. A name changes with its file. */
import { bundle } from "./bundle.ts" with { type: "macro" };

export interface Asset {
  /** Relative to the page. */
  readonly path: string;
  readonly type: string;
  readonly text: string;
}

const ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="#4a62c8"/><path d="M9 23V9l14 14V9" fill="none" stroke="#fff" stroke-width="3.4" stroke-linecap="round" stroke-linejoin="round"/></svg>
`;

export const SCRIPT = asset("page", "js", "text/javascript; charset=utf-8", bundle("main.ts"));
export const STYLE = asset("page", "css", "text/css; charset=utf-8", bundle("page.css"));
export const FAVICON = asset("icon", "svg", "image/svg+xml", ICON);

export const ASSETS: ReadonlyMap<string, Asset> = new Map(
  [SCRIPT, STYLE, FAVICON].map((file) => [file.path, file]),
);

function asset(name: string, ending: string, type: string, text: string): Asset {
  const hash = new Bun.CryptoHasher("sha256").update(text).digest("hex").slice(0, 16);
  return { path: `_page/${name}-${hash}.${ending}`, type, text };
}

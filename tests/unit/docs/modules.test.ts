/** Configurations on pages set options that the modules have: those that `docs/options.md` lists, made from them. */
import { expect, test } from "bun:test";
import { PAGES, page } from "../../support/docs.ts";

const MODULE = "services.nixcache-proxy";

const listed = page("docs/options.md").headings.flatMap(({ text }) => {
  const [, name] = /^`services\.nixcache-proxy\.([\w.]+)`$/.exec(text) ?? [];
  return name === undefined ? [] : [name];
});

const used = PAGES.flatMap(({ blocks }) => blocks)
  .filter(({ language, text }) => language === "nix" && text.includes(`${MODULE} = {`))
  .map(({ at, text }) => [at, optionsIn(text)] as const);

/** The names that are set in the module's set, those in sets below with dots. */
function optionsIn(text: string): string[] {
  const found: string[] = [];
  const above: string[] = [];
  const rest = text
    .slice(text.indexOf(`${MODULE} = {`) + `${MODULE} = {`.length)
    .replaceAll(/#.*|"[^"]*"/g, "");
  for (const [, name, opens, closes] of rest.matchAll(/([\w.-]+)\s*=\s*(\{)?|(\})/g)) {
    if (closes !== undefined) {
      if (above.pop() === undefined) break;
    } else if (name !== undefined && opens !== undefined) above.push(name);
    else if (name !== undefined) found.push([...above, name].join("."));
  }
  return found;
}

test.each(used)("%s", (_, options) => {
  expect(options.length).toBeGreaterThan(2);
  expect(options.filter((name) => !listed.includes(name))).toEqual([]);
});

test("what counts as an option", () => {
  const text = `{
    a = 1;
    ${MODULE} = {
      enable = true; # b = 2;
      caches = [ "x = y" ];
      narCache = {
        size = "1G";
      };
      port = 1;
    };
    c = 3;
  }`;
  expect(optionsIn(text)).toEqual(["enable", "caches", "narCache.size", "port"]);
});

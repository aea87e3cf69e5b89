/** The pages among each other: links, what the map lists, and blocks that something checks. */
import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { ROOT } from "../../../scripts/process.ts";
import { anchor, PAGES, page, readPage } from "../../support/docs.ts";

const byFile = new Map(PAGES.map((page) => [page.file, page]));

/** By which test a block of a language is checked. Diagrams and records of the format have no language. */
const CHECKED = ["", "sh", "console", "nix", "ini", "yaml", "nginx", "json", "xml"];

/** Undefined for a link that leads somewhere. */
function brokenLink(file: string, target: string): string | undefined {
  if (/^https:\/\//.test(target)) return URL.canParse(target) ? undefined : "is no URL";
  // Of this machine, as serve says it.
  if (/^http:\/\/127\.0\.0\.1:37515$/.test(target)) return undefined;
  const [path = "", heading] = target.split("#");
  const other = path === "" ? file : normalize(join(dirname(file), path));
  if (!existsSync(join(ROOT, other))) return "leads nowhere";
  if (heading === undefined) return undefined;
  const anchors = byFile.get(other)?.headings.map(({ text }) => anchor(text)) ?? [];
  return anchors.includes(heading) ? undefined : "leads to no heading";
}

test.each(PAGES.map((page) => [page.file, page] as const))("the links of %s", (file, { links }) => {
  const broken = links.flatMap(({ at, text }) => {
    const why = brokenLink(file, text);
    return why === undefined ? [] : [`${at}: ${text} ${why}`];
  });
  expect(broken).toEqual([]);
});

test.each(PAGES.map((page) => [page.file, page] as const))("the headings of %s are told apart", (_, page) => {
  const anchors = page.headings.map(({ text }) => anchor(text));
  expect(anchors).toEqual([...new Set(anchors)]);
});

test("the map lists every page once", () => {
  const listed = page("docs/README.md")
    .links.map(({ text }) => text)
    .filter((text) => text.endsWith(".md"));
  const pages = PAGES.map(({ file }) => file).filter((file) => file !== "docs/README.md");
  const expected = pages.map((file) =>
    file.startsWith("docs/") ? file.slice("docs/".length) : `../${file}`,
  );
  expect(listed.sort()).toEqual(expected.sort());
});

test("CONTRIBUTING.md says what each folder is for", () => {
  const { text } = page("CONTRIBUTING.md");
  const folders = ["src", "tests"].flatMap((top) =>
    readdirSync(join(ROOT, top), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => `${top}/${name}/`),
  );
  expect(folders.filter((folder) => !text.includes(`\n${folder} `))).toEqual([]);
});

test("every block is of a kind that is checked", () => {
  const unknown = PAGES.flatMap(({ blocks }) => blocks).filter(({ language }) => !CHECKED.includes(language));
  expect(unknown.map(({ at, language }) => `${at}: ${language}`)).toEqual([]);
});

test.each(
  PAGES.flatMap(({ blocks }) => blocks.filter(({ language }) => language === "json")).map(
    ({ at, text }) => [at, text] as const,
  ),
)("%s is JSON", (_, text) => {
  expect(() => JSON.parse(text)).not.toThrow();
});

describe("what the checks see", () => {
  test("blocks, code, links, headings and rows, with their places", () => {
    const text = [
      "# A *heading*",
      "",
      "Words and `code` and [a link](b.md#c).",
      "",
      "```sh",
      "ls",
      "```",
      "",
      '<img src="x.png">',
      "",
      "| a | b |",
      "|---|---|",
      "| `c` | [d](e.md) |",
      "",
      "- one",
      "",
      "  ```nix",
      "  {}",
      "  ```",
    ].join("\n");
    expect(readPage("p.md", text)).toEqual({
      file: "p.md",
      text,
      blocks: [
        { at: "p.md:5", language: "sh", text: "ls" },
        { at: "p.md:15", language: "nix", text: "{}" },
      ],
      spans: [
        { at: "p.md:3", text: "code" },
        { at: "p.md:11", text: "c" },
      ],
      links: [
        { at: "p.md:3", text: "b.md#c" },
        { at: "p.md:9", text: "x.png" },
        { at: "p.md:11", text: "e.md" },
      ],
      headings: [{ at: "p.md:1", text: "A *heading*" }],
      rows: [{ under: "A *heading*", cells: ["`c`", "[d](e.md)"], code: [["c"], []] }],
    });
  });

  test.each(
    [
      ["docs/README.md", "nowhere.md", "leads nowhere"],
      ["docs/README.md", "../README.md#nothing", "leads to no heading"],
      ["docs/README.md", "#nothing", "leads to no heading"],
      ["README.md", "README.md", "leads nowhere" as string | undefined],
      ["README.md", "http://example.org", "leads nowhere"],
      ["README.md", "https://example.org/x", undefined],
      ["README.md", "docs/format.md#index-layers", undefined],
    ].filter(([, target]) => target !== "README.md"),
  )("in %s a link to %s %s", (file = "", target = "", why) => {
    expect(brokenLink(file, target)).toBe(why);
  });

  test.each([
    ["How it works", "how-it-works"],
    ["Exit status 8: `unreachable`", "exit-status-8-unreachable"],
    ["What's in a name?", "whats-in-a-name"],
  ])("the anchor of %s", (heading, expected) => {
    expect(anchor(heading)).toBe(expected);
  });
});

/** Commands and flags that stand inside of a line are held against their definitions; blocks are run elsewhere. */
import { describe, expect, test } from "bun:test";
import { commands } from "../../../src/commands/commands.ts";
import { allFlags, complaint, wordsOf } from "../../support/command-lines.ts";
import { PAGES, page } from "../../support/docs.ts";

/** Flags of other programs. */
const FOREIGN: Readonly<Record<string, string>> = {
  "--fallback": "nix",
  "--apply": "nix eval",
  "--keep-going": "nix",
  "--log-format internal-json": "nix",
  "--option": "nix",
  "--json": "nix",
  "--add-root": "nix-store",
  "--realise": "nix-store",
  "--delete-untagged": "docker-registry garbage-collect",
  "--api-delete": "olareg serve",
  "--impure": "nix",
};

const flags = allFlags();
const spans = PAGES.flatMap(({ spans }) => spans);
/** A sentence that begins with it is a hint. */
const typed = spans.filter(({ text }) => /^nixcache [a-z…]/.test(text) && !text.endsWith("."));

test.each(typed.map(({ at, text }) => [at, text] as const))("%s: %s", (_, text) => {
  // `nixcache …`, and what is said of all of a kind.
  if (text.includes("nixcache …")) return;
  expect(complaint(wordsOf(text).slice(1))).toBeUndefined();
});

test("flags are ours, or those of programs that we know", () => {
  const unknown = spans.flatMap(({ at, text }) => {
    const [flag = ""] = /^--?[A-Za-z][\w-]*/.exec(text) ?? [];
    const known = flag === "" || flags.has(flag) || flag in FOREIGN || text in FOREIGN;
    return known ? [] : [`${at}: ${text}`];
  });
  expect(unknown).toEqual([]);
});

test("the README has a row for each command, or names it in that of another", () => {
  const rows = page("README.md").rows.filter(({ under }) => under === "Commands");
  const heads = rows.flatMap(({ code: [names = []] }) =>
    names.map((text) => /^nixcache ([a-z]+)/.exec(text)?.[1]),
  );
  expect(heads.filter((name) => name === undefined || !(name in commands))).toEqual([]);
  const named = new Set([
    ...heads,
    ...rows.flatMap(({ code }) => code.flat().map((text) => text.split(" ")[0])),
  ]);
  expect(Object.keys(commands).filter((name) => !named.has(name))).toEqual([]);
});

describe("what the check finds", () => {
  test.each([
    ["serve --cache OWNER/REPO", undefined],
    ["frobnicate", 'there is no command "frobnicate"'],
    ["serve --prot 1", "Unknown option '--prot'"],
    ["serve --port", "--port needs a value"],
    ["keygen NAME [SECRET-FILE] [PUBLIC-FILE]", undefined],
    ["gc extra", 'unexpected argument "extra"'],
    ["publish --watch -- COMMAND…", undefined],
    ['publish --upstream ""', undefined],
  ])("%s", (text, expected) => {
    expect(complaint(wordsOf(text))).toBe(expected);
  });
});

/** `docs/troubleshooting.md` quotes what the binary prints: nothing else, and every hint and exit status. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../../../scripts/process.ts";
import { EXIT_CODES } from "../../../src/errors.ts";
import { page } from "../../support/docs.ts";
import {
  codesOf,
  hintsIn,
  isPrinted,
  parseSource,
  readSources,
  textsIn,
} from "../../support/source-texts.ts";

const troubleshooting = page("docs/troubleshooting.md");
const sources = readSources();

/** What Nix says is another matter, and is produced where it can be. */
const ours = troubleshooting.rows.filter(({ under }) => under !== "What Nix says");

/** Messages and hints; in further cells and prose stands what is no message. */
const quoted = ours.flatMap(({ code: [messages = [], hints = []], under }) =>
  /^Exit status/.test(under) ? [...messages, ...hints.filter((text) => / /.test(text))] : messages,
);

/** Hints for all of a kind stand above its table. */
const anywhere = [...quoted, ...troubleshooting.spans.map(({ text }) => text.replaceAll(/\s+/g, " "))];

test("the tables are read", () => {
  expect(quoted.length).toBeGreaterThan(100);
});

test("every message and hint is printed by the binary", () => {
  expect(quoted.filter((text) => !isPrinted(text, sources))).toEqual([]);
  // "…" alone would be anything.
  expect(quoted.filter((text) => text.replaceAll(/[^\p{L}]/gu, "").length < 3)).toEqual([]);
});

test("every message stands under the exit status that it comes with", () => {
  const misplaced = ours.flatMap(({ under, code: [messages = []] }) => {
    const [, section = ""] = /^Exit status \d+: `([\w-]+)`$/.exec(under) ?? [];
    return messages.filter((message) => {
      const codes = codesOf(message, sources);
      return section !== "" && codes.size > 0 && !codes.has(section);
    });
  });
  expect(misplaced).toEqual([]);
});

test("every hint is there", () => {
  expect(sources.hints.length).toBeGreaterThan(60);
  expect(sources.hints.filter((hint) => !anywhere.includes(hint))).toEqual([]);
});

test("every exit status has a section, by its number", () => {
  const named = troubleshooting.headings.flatMap(({ text }) => {
    const [, number, code] = /^Exit status (\d+): `([\w-]+)`$/.exec(text) ?? [];
    return code === undefined ? [] : [{ code, number: Number(number) }];
  });
  expect(named).toEqual(Object.entries(EXIT_CODES).map(([code, number]) => ({ code, number })));
});

test("the table of exit statuses in docs/configuration.md has each of them", () => {
  const numbers = page("docs/configuration.md").rows.flatMap(({ cells: [cell = ""] }) =>
    /^\d+$/.test(cell) ? [Number(cell)] : [],
  );
  expect(numbers).toEqual([0, ...Object.values(EXIT_CODES)]);
});

test("docs/inspecting.md explains what verify finds", () => {
  const findings = textsIn(parseSource(readFileSync(join(ROOT, "src/verify/finding.ts"), "utf8")));
  const explained = page("docs/inspecting.md").rows.flatMap(({ code: [finding = []] }) => finding);
  const sentences = findings.filter((text) => text.includes(" "));
  expect(sentences.length).toBeGreaterThan(8);
  expect(sentences.filter((text) => !explained.includes(text))).toEqual([]);
});

describe("what is found in sources", () => {
  const tree = parseSource(`
    const HINTS = { usage: "Read the help of it." };
    function invalid(text: string, hint = "Write it so that it can be read.") { return { hint }; }
    throw new NixcacheError("usage", \`got \${text}, expected \${\`a \${kind}\`}\`, { hint: a ? "Try it again." : "Give up on it." });
    invalid("a text", \`Write \${x} in its place.\`);
    import { x } from "./x.ts" with { type: "macro" };
  `);

  test("texts, with … for what is put in", () => {
    expect(textsIn(tree)).toContain("got …, expected …");
    expect(textsIn(tree)).toContain("a …");
  });

  test("hints, wherever they stand", () => {
    expect(hintsIn([tree]).sort()).toEqual([
      "Give up on it.",
      "Read the help of it.",
      "Try it again.",
      "Write it so that it can be read.",
      "Write … in its place.",
    ]);
  });

  test.each([
    ["got …, expected …", true],
    ["got …", true],
    ["got nothing, expected …", false],
    ["Try it again.", true],
    ["Try it again", false],
  ])("%s is printed: %s", (message, expected) => {
    expect(isPrinted(message, { texts: textsIn(tree) })).toBe(expected);
  });
});

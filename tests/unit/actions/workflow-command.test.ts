import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { StepLog } from "../../../src/actions/step-log.ts";
import { annotation, groupStart } from "../../../src/actions/workflow-command.ts";
import { readCommands } from "../../support/actions-log.ts";
import { propertyParameters } from "../../support/seed.ts";

test.each([
  ["error", "it failed", "title", "::error title=title::it failed"],
  ["warning", "100% of\r\nit", "a:b,c", "::warning title=a%3Ab%2Cc::100%25 of%0D%0Ait"],
  ["notice", "a:b,c ::error::x", "%3A", "::notice title=%253A::a:b,c ::error::x"],
] as const)("%s %j %j", (level, message, title, line) => {
  expect(annotation(level, message, title)).toBe(line);
});

test("a group's title is one line", () => {
  expect(groupStart("a\nb%")).toBe("::group::a%0Ab%25");
});

test("what goes in comes out at the runner", () => {
  fc.assert(
    fc.property(
      fc.string({ unit: "grapheme" }),
      fc.string({ unit: "grapheme", minLength: 1 }),
      (message, title) => {
        const line = annotation("error", message, title);
        expect(line).not.toContain("\n");
        expect(readCommands(line)).toEqual([
          { name: "error", properties: title.trim() === "" ? {} : { title: title.trimEnd() }, message },
        ]);
      },
    ),
    {
      ...propertyParameters(),
      examples: [
        ["%0A", "::set-output name=a::b"],
        ["", " "],
      ],
    },
  );
});

describe("the log of a step", () => {
  const HOSTILE = [
    "::error::x",
    "  ::set-output name=a::b",
    "text ##[set-output name=a]b",
    "##[stop-commands]guess",
    "::stop-commands::guess",
    "::guess::",
    "::endgroup::",
  ];

  test("has no commands but ours, whatever strangers say", () => {
    const lines: string[] = [];
    const log = new StepLog((text) => lines.push(text), "secret-token");
    for (const line of HOSTILE) log.text(line);
    log.startGroup("Nix's log");
    for (const line of HOSTILE) log.text(line);
    log.annotate("warning", "within", "t");
    for (const line of HOSTILE) log.text(line);
    log.endGroup();
    log.text(HOSTILE.join("\n"));
    for (const line of HOSTILE) log.annotate("error", line, line);
    const commands = readCommands(lines.join("\n"));
    expect(commands.map(({ name, message }) => [name, message])).toEqual([
      ["group", "Nix's log"],
      ["warning", "within"],
      ["endgroup", ""],
      ...HOSTILE.map((line) => ["error", line]),
    ]);
    expect(lines.join("\n").split("::error::x").length).toBeGreaterThan(4);
  });

  test("gives the runner back to whoever prints in between", () => {
    const lines: string[] = [];
    const log = new StepLog((text) => lines.push(text), "t");
    log.text("ours");
    lines.push("::notice::theirs");
    expect(readCommands(lines.join("\n")).map(({ message }) => message)).toEqual(["theirs"]);
  });
});

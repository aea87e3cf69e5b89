import { expect, test } from "bun:test";
import { commands } from "../../../src/commands/commands.ts";
import { EXIT_CODES } from "../../../src/errors.ts";
import { bashCompletions } from "../../../src/manual/bash.ts";
import { describeCommands } from "../../../src/manual/command-spec.ts";
import { exitStatuses } from "../../../src/manual/exit-status.ts";
import { fishCompletions } from "../../../src/manual/fish.ts";
import { manPage } from "../../../src/manual/man-page.ts";
import { zshCompletions } from "../../../src/manual/zsh.ts";

const HOSTILE = describeCommands({
  odd: {
    meta: { name: "odd", description: "It's 100% [odd]: \\n `x` $(x)" },
    args: {
      "what…": { type: "positional", required: false, valueHint: "PATH", description: ".br 'x'" },
      one: { type: "string", alias: "o", valueHint: "a|b…", description: "one: of [two]" },
      flag: { type: "boolean", description: "-" },
    },
  },
});

test("values, names and repetitions are read off the definitions", () => {
  expect(HOSTILE[0]?.positionals).toEqual([
    { name: "WHAT", description: ".br 'x'", required: false, many: true, values: "file" },
  ]);
  expect(HOSTILE[0]?.flags.map(({ name, short, many, value }) => [name, short, many, value])).toEqual([
    ["one", "o", true, { hint: "a|b", values: ["a", "b"] }],
    ["flag", undefined, false, undefined],
    ["help", "h", false, undefined],
  ]);
});

test("descriptions cannot end what they stand in", () => {
  expect(zshCompletions("x", HOSTILE)).toContain("'*--one=[one\\: of \\[two\\]]:a|b:(a b)'");
  expect(zshCompletions("x", HOSTILE)).toContain("It'\\''s 100% \\[odd\\]\\: \\\\n `x` $(x)");
  expect(fishCompletions("x", HOSTILE)).toContain("-d 'It\\'s 100% [odd]: \\\\n `x` $(x)'");
  expect(bashCompletions("x", HOSTILE)).not.toContain("$(x)");
  const page = manPage({
    ...{ program: "x", description: "D", version: "1", date: "2026-11-23" },
    ...{ commands: HOSTILE, exitStatuses: [] },
  });
  expect(page).toContain("\\&.br 'x'");
  expect(page).toContain("It's 100% [odd]: \\en `x` $(x).");
});

test("every command is described, and every exit code", () => {
  expect(describeCommands(commands).map(({ name }) => name)).toEqual(Object.keys(commands));
  for (const { description, flags } of describeCommands(commands)) {
    expect(description).not.toBe("");
    for (const flag of flags) expect([flag.name, flag.description]).not.toEqual([flag.name, ""]);
  }
  const codes = exitStatuses().map(({ code }) => code);
  expect(codes).toEqual([0, ...Object.values(EXIT_CODES)]);
});

import { describe, expect, test } from "bun:test";
import type { ArgsDef } from "citty";
import { readArguments } from "../../../src/commands/command.ts";

const ARGS: ArgsDef = {
  one: { type: "positional", required: false },
  cache: { type: "string" },
  upstream: { type: "string", valueHint: "URL…" },
  json: { type: "boolean" },
};

describe("readArguments", () => {
  test("reads flags in both forms, and what may be repeated", () => {
    const given = readArguments(["--cache=a", "x", "--upstream", "", "--upstream", "u", "--json"], ARGS);
    expect(given.positionals).toEqual(["x"]);
    expect(given.text("cache")).toBe("a");
    expect(given.texts("upstream")).toEqual(["", "u"]);
    expect(given.flag("json")).toBe(true);
    const none = readArguments([], ARGS);
    expect([none.text("cache"), none.texts("upstream"), none.flag("json")]).toEqual([
      undefined,
      undefined,
      false,
    ]);
  });

  test("what follows -- is no flag, and a name that ends in … takes any number", () => {
    expect(readArguments(["--", "--json"], ARGS).positionals).toEqual(["--json"]);
    const raw = ["a", "--json", "--", "--cache", "--", "b"];
    expect(readArguments(raw, { ...ARGS, "path…": { type: "positional" } }).behindDashes).toEqual([
      "--cache",
      "--",
      "b",
    ]);
    expect(readArguments(["--"], ARGS).behindDashes).toEqual([]);
    expect(readArguments(["a"], ARGS).behindDashes).toBeUndefined();
    const many: ArgsDef = { "path…": { type: "positional", required: false } };
    expect(readArguments(["a", "b", "c"], many).positionals).toEqual(["a", "b", "c"]);
  });

  test.each([
    [["--cahce", "x"], "--cahce"],
    [["-x"], "-x"],
    [["--cache", "a", "--cache", "b"], "--cache is given more than once"],
    [["--cache"], "--cache needs a value"],
    [["--cache", "--json"], "--cache needs a value"],
    [["--json=yes"], "--json"],
    [["a", "b"], 'unexpected argument "b"'],
  ])("%j is refused in one sentence", (raw, message) => {
    expect(() => readArguments(raw, ARGS)).toThrow(message);
    try {
      readArguments(raw, ARGS);
    } catch (error) {
      expect(error).toMatchObject({ code: "usage", exitCode: 2 });
      expect((error as Error).message).not.toContain("\n");
    }
  });
});

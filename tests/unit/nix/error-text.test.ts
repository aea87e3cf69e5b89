import { expect, test } from "bun:test";
import { shortError } from "../../../src/nix/error-text.ts";

test.each<[string, string, string]>([
  [
    "Nix 2.8: positions follow",
    `error: attribute 'nothing' missing

       at /nix/store/abc-source/flake.nix:8:90:

            7|   in {
            8|     x = { }.nothing;
             |         ^
(use '--show-trace' to show detailed location information)`,
    "attribute 'nothing' missing",
  ],
  [
    "Nix 2.19 on: the way comes first",
    `error:
       … while evaluating the attribute 'drvPath'
         at /nix/store/abc-source/flake.nix:3:5:
            2|
            3|     x = throw "no";
             |     ^
       … while calling the 'throw' builtin

       error: Package ‘x’ has an unfree license (‘unfree’),
       refusing to evaluate.

       a) To temporarily allow unfree packages, you can use an environment variable`,
    "Package ‘x’ has an unfree license (‘unfree’), refusing to evaluate.",
  ],
  [
    "NixOS' failed assertions: their text begins on the next line",
    `warning: something else
error:
       Failed assertions:
       - services.x: Set y.
         Or z.
       - another
(use '--show-trace' to show detailed location information)`,
    "Failed assertions: - services.x: Set y. Or z. - another",
  ],
  [
    "the same behind the way to it",
    `error:
       … while evaluating the attribute 'config.system.build.toplevel'
         at /nix/store/abc-source/flake.nix:3:5:

       … while calling the 'throw' builtin

       error:

       Failed assertions:
       - services.x: Set y.`,
    "Failed assertions: - services.x: Set y.",
  ],
  ["an error without a word", "error:\n", "error:"],
  [
    "Nix 2.26 on: an assertion that two things are the same",
    `error:
       … while evaluating the condition of the assertion '(a == { x = 3; })'
         at «string»:1:20:
            1| let a = {x=1;}; in assert a == {x=3;}; 3
             |                    ^

       … while comparing attribute 'x'

       (stack trace truncated; use '--show-trace' to show the full, detailed trace)

       error: an integer with value '1' is not equal to an integer with value '3'`,
    "assertion failed: an integer with value '1' is not equal to an integer with value '3'",
  ],
  ["no error at all", "what is this\n", "what is this"],
  ["nothing", "", ""],
  [
    "a position without a blank line",
    "error: undefined variable 'x'\n       at «string»:1:1:",
    "undefined variable 'x'",
  ],
])("%s", (_, text, expected) => {
  expect(shortError(text.split("\n"))).toBe(expected);
});

test.each([
  "string '\"a\"' is not equal to string '\"b\"'",
  "list of size '1' is not equal to list of size '2', left hand side is '[ 1 ]', right hand side is '[ 2 3 ]'",
  "attribute name 'a' is contained in '{ a = 1; }', but not in '{ b = 1; }'",
  "null of value 'null' is not equal to an integer of value '1'",
  "boolean 'true' is not equal to boolean 'false'",
  "a function of value '«lambda @ «string»:1:9»' is not equal to an integer of value '1'",
])("%s, of an assertion", (error) => {
  expect(shortError(["error:", "       … while evaluating x", "", `       error: ${error}`])).toBe(
    `assertion failed: ${error}`,
  );
});

test("long ones are cut", () => {
  expect(shortError([`error: ${"x".repeat(1000)}`])).toBe(`${"x".repeat(300)}…`);
});

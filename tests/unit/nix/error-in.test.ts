import { describe, expect, test } from "bun:test";
import { askAcceptance } from "../../../src/nix/acceptance.ts";
import { errorIn } from "../../../src/nix/error-text.ts";
import { isTooOld } from "../../../src/nix/least-version.ts";

const DOWN = "unable to download 'http://127.0.0.1:1/nix-cache-info': HTTP error 503";
const BODY = "\n\n       response body:\n\n       error: the server's own words";

describe("why a command of Nix's failed", () => {
  test.each([
    ["its error", "error: path is not valid\n", "path is not valid"],
    [
      "not a warning behind it",
      "error: no\nwarning: the group 'nixbld' specified in 'build-users-group' does not exist\n",
      "no",
    ],
    [
      "not the words of a server, by 2.26",
      `warning: error: ${DOWN}${BODY}; retrying\nerror: ${DOWN}${BODY}\n`,
      DOWN,
    ],
    [
      "not the words of a server, by 2.34",
      `warning: ${DOWN}\n\nresponse body:\n\ndown; retrying in 315 ms (attempt 1/5)\nerror: ${DOWN}${BODY}\n`,
      DOWN,
    ],
    [
      "not advice",
      "error: unrecognised flag '--x'\nTry 'nix --help' for more information.\n",
      "unrecognised flag '--x'",
    ],
    ["behind the way to it", "error:\n       … while x\n\n       error: innermost\n", "innermost"],
    ["the last words where there is no error", "warning: y\nsomething\nelse\nwarning: x\n", "else"],
    ["nothing where there are only warnings", "warning: x\n", ""],
    ["in colours", "\u001b[31;1merror:\u001b[0m no\n", "no"],
  ])("%s", (_, stderr, expected) => {
    expect(errorIn(stderr)).toBe(expected);
  });

  test("a cache that is down is what Nix says of it, not what its last line happens to be", async () => {
    const run = async () => ({ exitCode: 1, stdout: "", stderr: `error: ${DOWN}${BODY}\n` });
    const ask = { path: "/nix/store/x", url: "http://127.0.0.1:1", folder: "/tmp" };
    expect(await askAcceptance(run, {}, ask)).toEqual({ kind: "failed", reason: DOWN });
  });
});

test.each([
  ["2.3.7", true],
  ["2.3", true],
  ["1.11.16", true],
  ["2.4", false],
  ["2.4pre20211006_53e4794", false],
  ["2.8.0", false],
  ["2.34.8", false],
  ["2.91.1", false],
  ["3.0.0", false],
  ["", false],
])("%s is too old: %p", (version, expected) => {
  expect(isTooOld(version)).toBe(expected);
});

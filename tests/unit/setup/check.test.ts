import { describe, expect, test } from "bun:test";
import { NixcacheError } from "../../../src/errors.ts";
import { type Check, note, ok, once, runChecks, wrong } from "../../../src/setup/check.ts";
import { age } from "../../../src/setup/words.ts";
import { findingLines } from "../../../src/terminal/findings.ts";
import { TestHost } from "../../support/protocol.ts";

test("all are run at once, and stay in their order; what is thrown is a finding", async () => {
  const second = Promise.withResolvers<void>();
  const checks: Check[] = [
    { name: "first", run: () => second.promise.then(() => ok("after the second")) },
    {
      name: "second",
      run: async () => {
        second.resolve();
        return note("b", "Do it.");
      },
    },
    { name: "third", run: () => Promise.reject(new NixcacheError("denied", "no", { hint: "Sign in." })) },
    { name: "fourth", run: () => Promise.reject(new TypeError("defect")) },
  ];
  const never = { sleep: () => new Promise<void>(() => {}) };
  expect(await runChecks(checks, 1000, never)).toEqual([
    { check: "first", state: "ok", text: "after the second" },
    { check: "second", state: "note", text: "b", mend: "Do it." },
    { check: "third", state: "wrong", text: "no", mend: "Sign in." },
    { check: "fourth", state: "wrong", text: "defect", mend: "Run it again with --verbose." },
  ]);
});

test("one that never answers is cut off, the others are not", async () => {
  const checks: Check[] = [
    { name: "hangs", run: () => new Promise(() => {}) },
    { name: "answers", run: async () => ok("fine") },
  ];
  const found = await runChecks(checks, 5000, new TestHost());
  expect(found.map(({ state, text }) => [state, text])).toEqual([
    ["wrong", "no answer within 5 s"],
    ["ok", "fine"],
  ]);
});

test("a question is asked once", async () => {
  let asked = 0;
  const ask = once(async () => ++asked);
  expect([await ask(), await ask(), asked]).toEqual([1, 1, 1]);
});

test("strangers' text cannot leave its line", () => {
  const lines = findingLines([
    { check: "serve", ...wrong("x\n\u001b[31mfake", "y\nz") },
    { check: "nix", ...ok("a") },
  ]);
  expect(lines).toEqual([
    "wrong   serve         x\\u000a\\u001b[31mfake",
    "                      → y\\u000az",
    "ok      nix           a",
  ]);
});

describe("age", () => {
  test.each([
    [-5, "0 s"],
    [119_000, "119 s"],
    [120_000, "2 min"],
    [7_200_000, "2 h"],
    [172_800_000, "2 days"],
  ])("%d ms are %s", (ms, text) => {
    expect(age(ms)).toBe(text);
  });
});

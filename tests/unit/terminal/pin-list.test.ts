import { expect, test } from "bun:test";
import type { ListedPin } from "../../../src/pins/list.ts";
import { pinLines } from "../../../src/terminal/pin-list.ts";

const PIN: ListedPin = {
  name: "release",
  label: "packages.x86_64-linux.default",
  path: "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello",
  since: "2026-01-02T03:04:05.000Z",
  until: null,
  over: false,
  keepRevisions: 1,
  revisions: [{ generation: "20260102t030405z-0123456789abcdef", path: "", time: "" }],
  paths: 2,
  bytes: 3 * 1024 ** 2,
};

test("pins are columns: name, path, since when, until when, revisions, size", () => {
  const days = { ...PIN, name: "x", until: "2026-02-03T00:00:00.000Z", revisions: [], bytes: 10 };
  const over = { ...PIN, name: "y", until: "2026-01-03T00:00:00.000Z", over: true };
  expect(pinLines([PIN, days, over])).toEqual([
    `release  ${PIN.path}  since 2026-01-02  for ever                 1 revision   3.0 MiB`,
    `x        ${PIN.path}  since 2026-01-02  until 2026-02-03         0 revisions  10 B`,
    `y        ${PIN.path}  since 2026-01-02  until 2026-01-03 (over)  1 revision   3.0 MiB`,
  ]);
  expect(pinLines([])).toEqual([]);
});

test("what strangers have written drives no terminal", () => {
  const [line] = pinLines([{ ...PIN, name: "a\u001b[31m\n", path: "/nix\u202e" }]);
  expect(line).toStartWith("a\\u001b[31m\\u000a  /nix\\u202e  since");
});

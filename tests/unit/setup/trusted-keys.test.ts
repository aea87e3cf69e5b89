import { expect, test } from "bun:test";
import type { Generation } from "../../../src/cache/index-layer.ts";
import type { PublishRecord } from "../../../src/cache/record.ts";
import { findKeys } from "../../../src/setup/trusted-keys.ts";
import { TestHost, testRecord } from "../../support/protocol.ts";

const key = (name: string) => `${name}:${Buffer.alloc(32, name).toString("base64")}`;
let serial = 0;

function generation(time: string, more: Partial<PublishRecord>): Generation {
  serial++;
  return {
    name: `x-${serial}`,
    record: { ...testRecord([], new TestHost()), time, selection: "packages", ...more },
  };
}

test("the newest publish of each source says its keys, the newest first", () => {
  const generations = [
    generation("2026-01-01", { source: "repo#main", keys: [key("former")] }),
    generation("2026-01-02", { source: "repo#other", keys: [key("a")] }),
    generation("2026-01-03", { source: "repo#main", keys: [key("b"), key("a")] }),
    generation("2026-01-04", { source: "repo#main", system: "aarch64-linux", keys: [] }),
  ];
  const { keys, sources, unsigned } = findKeys(generations);
  expect(keys.map(({ text, from }) => [text, from.time])).toEqual([
    [key("b"), "2026-01-03"],
    [key("a"), "2026-01-03"],
  ]);
  expect([sources, unsigned]).toEqual([3, 1]);
});

test("what is no key is never proposed", () => {
  const odd = [
    `x y:${"A".repeat(43)}=`,
    `x:${"A".repeat(43)}=\nrequire-sigs = false`,
    "x:short",
    `not-base64:${"B".repeat(43)}=`,
    `#:${"A".repeat(43)}=`,
  ];
  expect(
    findKeys([generation("2026-01-01", { keys: [...odd, key("good")] })]).keys.map(({ text }) => text),
  ).toEqual([key("good")]);
});

test("an empty cache has none", () => {
  expect(findKeys([])).toEqual({ keys: [], sources: 0, unsigned: 0 });
});

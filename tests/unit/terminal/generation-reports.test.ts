/** What history, diff and why print. */
import { describe, expect, test } from "bun:test";
import type { PublishRecord } from "../../../src/cache/record.ts";
import type { HeldPath } from "../../../src/inspect/contents.ts";
import type { Difference, PackageChange } from "../../../src/inspect/diff.ts";
import type { HistoryItem } from "../../../src/inspect/history.ts";
import type { Holder, Why } from "../../../src/inspect/why.ts";
import { diffJson, diffLines, diffPathLines } from "../../../src/terminal/diff-report.ts";
import { historyJson, historyLines } from "../../../src/terminal/history-report.ts";
import { whyJson, whyLines } from "../../../src/terminal/why-report.ts";
import { storeHash, TestHost, testRecord } from "../../support/protocol.ts";
import { pathOf } from "../../support/publish.ts";

const NOW = Date.UTC(2026, 5, 1);
const SCREEN = { columns: 80, colors: false };
const name = (day: number) => `202605${String(day).padStart(2, "0")}t000000z-0123456789abcdef`;

const record = (more: Partial<PublishRecord> = {}): PublishRecord =>
  testRecord([], new TestHost(), {
    ...{ source: "https://github.com/o/r#main", branch: "main", system: "x86_64-linux", entries: 7 },
    ...more,
  });

const COMMAND = "::set-env name=A::##[set-output name=b]c";

/** What the runner of GitHub Actions takes for a command. */
function expectNoCommand(text: string): void {
  expect(text).not.toMatch(/^\s*::|##\[/m);
}

test("what strangers wrote is no command to GitHub Actions", () => {
  const of = record({ source: COMMAND, branch: COMMAND, system: COMMAND, revision: COMMAND, run: COMMAND });
  const generation = { name: name(1), record: { ...of, selection: COMMAND, roots: { [COMMAND]: COMMAND } } };
  const side = { ...generation, totals: { paths: 0, narSize: 0, fileSize: 0 } };
  const difference = { before: side, after: side, added: [], removed: [], packages: [] };
  const holder = { ...generation, ends: true, rule: "age", reason: COMMAND } as const;
  const why: Why = {
    ...{ path: undefined, lastHolder: undefined, leftAt: undefined, unadopted: false, unread: [] },
    holders: [{ ...holder, root: { output: COMMAND, chain: [] } }],
  };
  const item = { ...generation, before: undefined, added: undefined };
  for (const screen of [SCREEN, undefined]) {
    expectNoCommand(historyLines([item], screen, NOW).join("\n"));
    expectNoCommand(diffLines(difference, screen, NOW).join("\n"));
    expectNoCommand(whyLines(why, storeHash("lib"), screen, NOW).join("\n"));
  }
  for (const json of [
    historyJson(COMMAND, [item], 1),
    diffJson(COMMAND, difference),
    whyJson(COMMAND, "", why),
  ]) {
    expectNoCommand(json);
    expect(JSON.parse(json).cache).toBe(COMMAND);
  }
});

describe("history", () => {
  const item = (day: number, more: Partial<HistoryItem> = {}, of: Partial<PublishRecord> = {}) => ({
    ...{ name: name(day), record: record(of), before: name(1) },
    ...{ added: { paths: 2, narSize: 2048, fileSize: 1024 }, ...more },
  });

  test("a block for each, with what is known of it", () => {
    const of = {
      ...{ revision: "4a5b", selection: "flake .: packages", run: "https://example.org/1" },
      roots: Object.fromEntries(
        ["hello", "world", ..."abcdefghijklmnopqrstuvwxyz"].map((root) => [root, ""]),
      ),
    };
    expect(historyLines([item(31, {}, of), item(3, { before: undefined })], SCREEN, NOW)).toEqual([
      `${name(31)}  2026-05-31 00:00 UTC, 1 day ago`,
      "  source    https://github.com/o/r#main for x86_64-linux",
      "  revision  4a5b",
      "  selection flake .: packages",
      "  outputs   a, b, c, d, e, f, g, h, hello, i, j, k, l, m, n, o, p, q, … 10 more",
      "  paths     7 paths, 2 of them new: 2.0 KiB unpacked, 1.0 KiB compressed",
      "  run       https://example.org/1",
      "",
      `${name(3)}  2026-05-03 00:00 UTC, 29 days ago`,
      "  source    https://github.com/o/r#main for x86_64-linux",
      "  paths     7 paths, the first of its kind: 2.0 KiB unpacked, 1.0 KiB compressed",
    ]);
  });

  test("all outputs where it is piped, and no line of a stranger's", () => {
    const roots = { [`evil\n\u001b[31m${"x".repeat(400)}`]: "", other: "" };
    const lines = historyLines([item(1, {}, { roots, source: "a\nb" })], undefined, NOW);
    expect(lines.join("\n")).not.toContain("\u001b");
    expect(lines.every((line) => !line.includes("\n"))).toBe(true);
    expect(lines.find((line) => line.startsWith("  outputs"))).toMatch(
      /^ {2}outputs {3}evil\\u000a.*…, other$/,
    );
  });

  test.each<[string, Partial<HistoryItem>, Partial<PublishRecord>, string]>([
    ["nothing new", { added: { paths: 0, narSize: 0, fileSize: 0 } }, {}, "7 paths, none of them new"],
    ["unread", { added: undefined }, {}, "7 paths; what is new is not known"],
    ["a part of a run", {}, { partial: true }, "(a part of a run)"],
    ["another branch than the source says", {}, { source: "o/r#7/merge" }, "o/r#7/merge (main) for"],
  ])("%s", (_, more, of, expected) => {
    expect(historyLines([item(1, more, of)], SCREEN, NOW).join("\n")).toContain(expected);
  });

  test("as JSON", () => {
    const items = [
      item(3, {}, { revision: "4a5b", roots: { out: pathOf("a") } }),
      item(2, { before: undefined }),
    ];
    expect(JSON.parse(historyJson("c", [...items, item(1, { added: undefined })], 9))).toMatchObject({
      ...{ cache: "c", total: 9 },
      generations: [
        {
          ...{ generation: name(3), source: "https://github.com/o/r#main", branch: "main", revision: "4a5b" },
          ...{ system: "x86_64-linux", outputs: { out: pathOf("a") }, paths: 7, before: name(1) },
          added: { paths: 2, narSize: 2048, fileSize: 1024 },
        },
        { before: null },
        { added: null },
      ],
    });
  });
});

describe("diff", () => {
  const held = (of: string): HeldPath => ({
    ...{ hash: storeHash(of), name: of, narSize: 2048, fileSize: 1024, file: of },
  });
  const change = (of: string, more: Partial<PackageChange>): PackageChange => ({
    ...{ name: of, change: "changed", before: [], after: [], kept: [], sizeBefore: 0, sizeAfter: 0 },
    ...more,
  });
  const side = (day: number, paths: number) => ({
    name: name(day),
    record: record(),
    totals: { paths, narSize: paths * 2048, fileSize: paths * 1024 },
  });
  const difference: Difference = {
    before: side(1, 7),
    after: side(2, 8),
    added: [held("b-2"), held("new-1")],
    removed: [held("b-1")],
    packages: [
      change("b", { before: ["1"], after: ["2", ""], sizeBefore: 4096, sizeAfter: 2048 }),
      change("gone", { change: "removed", before: ["1"], sizeBefore: 10 }),
      change("less", { before: ["1"], kept: ["2"] }),
      change("new", { change: "added", after: ["1"], sizeAfter: 2048 }),
      change("same-name", { change: "rebuilt", kept: ["3"], sizeBefore: 5, sizeAfter: 5 }),
    ],
  };

  test("packages by what became of them, then the sums", () => {
    expect(diffLines(difference, SCREEN, NOW)).toEqual([
      `- ${name(1)}  2026-05-01 00:00 UTC, 1 month ago`,
      "  https://github.com/o/r#main for x86_64-linux, 7 paths",
      `+ ${name(2)}  2026-05-02 00:00 UTC, 1 month ago`,
      "  https://github.com/o/r#main for x86_64-linux, 8 paths",
      "",
      "2 packages: other versions",
      "  b          1 → 2, ε  (-2.0 KiB)",
      "  less       1 → ∅",
      "",
      "1 package: the same versions, other paths",
      "  same-name  3",
      "",
      "1 package: added",
      "  new        1  (+2.0 KiB)",
      "",
      "1 package: removed",
      "  gone       1  (-10 B)",
      "",
      "2 paths added, 1 removed",
      "14.0 KiB → 16.0 KiB (+2.0 KiB) unpacked",
      "7.0 KiB → 8.0 KiB (+1.0 KiB) compressed",
    ]);
  });

  test("no difference is one sentence", () => {
    const same = { ...difference, added: [], removed: [], packages: [] };
    expect(diffLines(same, SCREEN, NOW).slice(4)).toEqual(["", "both hold the same paths"]);
  });

  test("as paths, and as JSON", () => {
    const path = (of: string) => `/nix/store/${storeHash(of)}-${of}`;
    expect(diffPathLines(difference, undefined)).toEqual([
      `- ${path("b-1")}`,
      `+ ${path("b-2")}`,
      `+ ${path("new-1")}`,
    ]);
    expect(JSON.parse(diffJson("c", difference))).toMatchObject({
      cache: "c",
      before: { generation: name(1), paths: 7, narSize: 14_336, fileSize: 7168, system: "x86_64-linux" },
      after: { generation: name(2), paths: 8 },
      packages: difference.packages,
      added: [{ path: path("b-2"), name: "b-2", narSize: 2048, fileSize: 1024 }, { path: path("new-1") }],
      removed: [{ path: path("b-1") }],
    });
  });
});

describe("why", () => {
  const hash = storeHash("lib");
  const none: Why = {
    ...{ path: undefined, holders: [], lastHolder: undefined, leftAt: undefined },
    ...{ unadopted: false, unread: [] },
  };
  const holder = (day: number, more: Partial<Holder> = {}, of: Partial<PublishRecord> = {}): Holder => ({
    ...{
      name: name(day),
      record: record(of),
      ends: false,
      rule: "retention",
      reason: "younger than 30 days",
    },
    ...{ root: { output: "packages.app", chain: [pathOf("app"), pathOf("lib")] }, ...more },
  });

  test("by source, with a way and what gc makes of each", () => {
    const ends = {
      ends: true,
      rule: "age",
      reason: `older than 30 days, and seg-${name(30)} succeeded it`,
    } as const;
    const holders = [
      holder(30, { rule: "newest", reason: "the newest" }),
      ...[29, 28, 27, 26, 25].map((day) => holder(day)),
      holder(2, { root: undefined }, { source: "evil\n" }),
      holder(1, ends),
    ];
    expect(whyLines({ ...none, path: pathOf("lib"), holders }, hash, SCREEN, NOW)).toEqual([
      `${pathOf("lib")} is in 8 generations`,
      "",
      "https://github.com/o/r#main for x86_64-linux",
      "  through packages.app",
      `    ${storeHash("app")}-app`,
      `    → ${storeHash("lib")}-lib`,
      "  stays: the newest",
      `    ${name(30)}  2026-05-30 00:00 UTC, 2 days ago`,
      "  stays: younger than 30 days",
      ...[29, 28, 27].map((day) => `    ${name(day)}  2026-05-${day} 00:00 UTC, ${32 - day} days ago`),
      "    … 2 older",
      "  the next gc ends it: older than 30 days, and",
      `  seg-${name(30)} succeeded it`,
      `    ${name(1)}  2026-05-01 00:00 UTC, 1 month ago`,
      "",
      "evil\\u000a (main) for x86_64-linux",
      "  no root leads to it by what this cache has of its closure",
      "  stays: younger than 30 days",
      `    ${name(2)}  2026-05-02 00:00 UTC, 1 month ago`,
    ]);
  });

  test.each<[string, Partial<Why>, string[]]>([
    ["nothing", {}, [`/nix/store/${hash}-… is in no generation`, "Since when is not known", "upstream"]],
    [
      "the last that held it",
      { path: pathOf("lib"), lastHolder: { name: name(1), endedAt: NOW - 86_400_000 } },
      [
        `${pathOf("lib")} is in no generation`,
        "gc ended on 2026-05-31 00:00 UTC, 1 day ago",
        `serve --at ${name(1)}`,
      ],
    ],
    [
      "the last that held it, without its end",
      { lastHolder: { name: name(1), endedAt: undefined } },
      ["", "which gc ended.", "serve --at"],
    ],
    ["when it left", { leftAt: NOW - 86_400_000 }, ["", "It had left the cache", ""]],
    ["that not all could be read", { unread: [name(1)] }, ["in no generation that can be read", "", ""]],
  ])("what is known of a path that is gone: %s", (_, why, expected) => {
    const text = whyLines({ ...none, ...why }, hash, undefined, NOW).join("\n");
    for (const part of expected) expect(text).toContain(part);
    expect(text.includes("not known")).toBe(why.lastHolder === undefined && why.leftAt === undefined);
  });

  test("one that an index of nixcache-oci has says so, beside generations too", () => {
    const foreign = { ...none, path: pathOf("lib"), unadopted: true };
    const note = "It is in the index of nixcache-oci that is here.";
    expect(whyLines(foreign, hash, undefined, NOW)).toEqual([pathOf("lib"), expect.stringContaining(note)]);
    const lines = whyLines({ ...foreign, holders: [holder(3)] }, hash, undefined, NOW);
    expect(lines.slice(0, 2)).toEqual([
      `${pathOf("lib")} is in 1 generation`,
      expect.stringContaining(note) as unknown as string,
    ]);
    expect(JSON.parse(whyJson("c", hash, foreign))).toMatchObject({ held: true, unadopted: true });
  });

  test("as JSON", () => {
    const held = JSON.parse(whyJson("c", hash, { ...none, path: pathOf("lib"), holders: [holder(3)] }));
    expect(held).toMatchObject({
      ...{
        cache: "c",
        path: pathOf("lib"),
        hash,
        held: true,
        lastHolder: null,
        leftIndexAt: null,
        unread: [],
      },
      generations: [
        {
          ...{ generation: name(3), source: "https://github.com/o/r#main", ends: false, rule: "retention" },
          ...{ root: "packages.app", chain: [pathOf("app"), pathOf("lib")] },
        },
      ],
    });
    const lastHolder = { name: name(1), endedAt: NOW };
    expect(JSON.parse(whyJson("c", hash, { ...none, lastHolder, leftAt: NOW, unread: [name(2)] }))).toEqual({
      ...{ cache: "c", path: null, hash, held: false, generations: [], unadopted: false, unread: [name(2)] },
      lastHolder: { generation: name(1), endedAt: "2026-06-01T00:00:00.000Z" },
      leftIndexAt: "2026-06-01T00:00:00.000Z",
    });
  });
});

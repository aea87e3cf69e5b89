import { expect, test } from "bun:test";
import {
  type PublishFacts,
  publishSummary,
  unpublishedSummary,
} from "../../../src/terminal/publish-summary.ts";

const FACTS: PublishFacts = {
  result: {
    generation: "20260101t000000z-0123456789abcdef",
    paths: { closure: 6, upstream: 2, restated: 1, uploaded: 2 },
    bytes: { nar: 3 * 2 ** 20, sent: 2 ** 20 },
    newPaths: [
      { path: "/nix/store/small", narSize: 2 ** 20, fileSize: 2 ** 18 },
      { path: "/nix/store/large", narSize: 2 ** 21, fileSize: 2 ** 19 },
    ],
    leftOut: [],
  },
  holdings: { cacheName: "ghcr.io/o/r/nix-cache", paths: 12, generations: 3 },
  rows: [{ attribute: "packages.x.a", status: "built", path: "/nix/store/large", seconds: 3 }],
  buildMs: 61_000,
  uploadMs: 1500,
  dryRun: false,
  publicKey: "k-1:AAAA",
};

const NOTHING = {
  ...FACTS.result,
  generation: null,
  newPaths: [],
  paths: { ...FACTS.result.paths, uploaded: 0 },
};

test("outputs, new paths with their sizes before and after, what was skipped, times, what the cache holds", () => {
  const text = publishSummary(FACTS).join("\n");
  for (const part of [
    "## Published to <code>ghcr.io/o/r/nix-cache</code>",
    "| New | 2 paths: 3.0 MiB of NARs, 768 KiB compressed, 1.0 MiB sent |",
    "| Skipped | 1 in the cache already, 2 in upstream caches |",
    "| Evaluating and building | 1 min 1 s |",
    "| Uploading | 1.5 s |",
    "| The cache holds | 12 paths in 3 generations |",
    "| <code>packages.x.a</code> | built | <code>/nix/store/large</code> | 3 s |",
  ]) {
    expect(text).toContain(part);
  }
  expect(text.indexOf("/nix/store/large</code> | 2.0 MiB | 512 KiB |")).toBeGreaterThan(0);
  expect(text).toMatch(/large<\/code> \| 2\.0 MiB.*small<\/code> \| 1\.0 MiB/s);
  expect(text).not.toContain("No signing key is set");
});

test("nothing new is said as such, and a list without rows is none", () => {
  const text = publishSummary({ ...FACTS, result: NOTHING, rows: undefined, buildMs: undefined }).join("\n");
  expect(text).toContain("| New | 0 paths |");
  expect(text).toContain("| Generation | none: nothing has changed |");
  for (const part of ["### Outputs", "new path", "building", "Left out"]) expect(text).not.toContain(part);
});

test("what to do without a key, and what was left out, come before the outputs", () => {
  const leftOut = [{ path: "/nix/store/x", reason: "a | b <script> ::error::x" }];
  const facts = { ...FACTS, publicKey: undefined, result: { ...FACTS.result, leftOut } };
  const text = publishSummary(facts).join("\n");
  expect(text).toMatch(/No signing key is set.*### Left out.*### Outputs/s);
  expect(text).toContain("| Left out | 1 path, see below |");
  expect(text).not.toContain("<script>");
  expect(text).not.toContain("a | b");
});

test("a dry run says what it would do, and knows no compressed sizes", () => {
  const newPaths = FACTS.result.newPaths.map((path) => ({ ...path, fileSize: null }));
  const text = publishSummary({ ...FACTS, dryRun: true, result: { ...FACTS.result, newPaths } }).join("\n");
  expect(text).toContain("## Would publish to");
  expect(text).toContain("| New | 2 paths: 3.0 MiB of NARs |");
});

test("lists are bounded", () => {
  const path = { path: "/nix/store/x", narSize: 1, fileSize: 1 };
  const newPaths = Array.from({ length: 10_000 }, () => path);
  const leftOut = newPaths.map(({ path }) => ({ path, reason: "r" }));
  const text = publishSummary({ ...FACTS, result: { ...FACTS.result, newPaths, leftOut } }).join("\n");
  expect(text.length).toBeLessThan(20_000);
  expect(text.match(/… and 9950 more/g)?.length).toBe(2);
});

test("what was built is there where nothing was published, and why, without what is no text", () => {
  const why = "registry: <b>refused</b> | ::error::x";
  for (const [isExpected, kind] of [
    [true, "NOTE"],
    [false, "CAUTION"],
  ] as const) {
    const { rows } = FACTS;
    const text = unpublishedSummary({ cacheName: "ghcr.io/o/r", rows, why, isExpected }).join("\n");
    expect(text).toMatch(
      new RegExp(`^## Not published to <code>.*\\[!${kind}\\].*### Outputs.*packages.x.a`, "s"),
    );
    expect(text).not.toMatch(/<b>|::error/);
  }
});

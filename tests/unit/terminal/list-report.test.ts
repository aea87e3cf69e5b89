import { expect, test } from "bun:test";
import type { Generation } from "../../../src/cache/index-layer.ts";
import type { List, ListedPath } from "../../../src/inspect/list.ts";
import { listJson, listLines, listTotals } from "../../../src/terminal/list-report.ts";
import { storeHash, TestHost, testRecord } from "../../support/protocol.ts";

const NOW = Date.UTC(2026, 5, 1);
const GENERATION = "20260531t000000z-0123456789abcdef";

const path = (name: string, more: Partial<ListedPath> = {}): ListedPath => ({
  hash: storeHash(name),
  name,
  narSize: 1_500_000,
  fileSize: 400_000,
  added: NOW / 1000 - 3 * 86_400,
  ...more,
});

const list = (...paths: ListedPath[]): List => ({
  totals: { paths: paths.length, narSize: 1_500_000, fileSize: 400_000 },
  paths,
});

const closure = { paths: 3, narSize: 5_000_000_000, fileSize: 1, elsewhere: 2 };
const none = new Map<string, Generation>();

test("one path a line where it is piped, with the generations behind a tab", () => {
  const found = list(path("a-1"), path("b-2", { generations: [GENERATION, GENERATION] }));
  expect([...listLines(found, none, undefined, NOW)]).toEqual([
    `/nix/store/${storeHash("a-1")}-a-1`,
    `/nix/store/${storeHash("b-2")}-b-2\t${GENERATION} ${GENERATION}`,
  ]);
});

test("aligned columns on a screen, store paths where it is wide", () => {
  const found = list(path("a-1", { closure }), path("b-2", { fileSize: null, added: 1e15, narSize: 7 }));
  const narrow = [...listLines(found, none, { columns: 80, colors: false }, NOW)];
  expect(narrow).toEqual([
    "    SIZE  COMPRESSED   CLOSURE        AGE  NAME",
    " 1.4 MiB     391 KiB   4.7 GiB     3 days  a-1",
    "     7 B           ?         ?        now  b-2",
  ]);
  const wide = [...listLines(found, none, { columns: 140, colors: false }, NOW)];
  expect(wide[0]).toEndWith("AGE  PATH");
  expect(wide[1]).toEndWith(`3 days  /nix/store/${storeHash("a-1")}-a-1`);
});

test("a name that is too long for the screen keeps both its ends", () => {
  const name = "unit-systemd-networkd-wait-online-256.4.service";
  const [, row] = [...listLines(list(path(name)), none, { columns: 80, colors: false }, NOW)];
  expect(row).toEndWith("  unit-systemd-netwo…line-256.4.service");
  expect(row?.length).toBe(80);
  const [, wider] = [...listLines(list(path(name)), none, { columns: 100, colors: false }, NOW)];
  expect(wider).toEndWith(`  ${name}`);
});

test("nothing has no heading", () => {
  expect([...listLines(list(), none, { columns: 80, colors: true }, NOW)]).toEqual([]);
});

test("generations stand below their path, with what strangers wrote made printable", () => {
  const record = testRecord([], new TestHost(), { source: "evil\u001b[31m\n#x", system: "s\u202e" });
  const known = new Map([[GENERATION, { name: GENERATION, record }]]);
  const found = list(path("a-1", { generations: [GENERATION] }));
  expect([...listLines(found, known, { columns: 80, colors: false }, NOW)].at(-1)).toBe(
    `    ${GENERATION}  evil\\u001b[31m\\u000a#x for s\\u202e`,
  );
});

test("the pieces of the JSON are one object", () => {
  const found = list(path("a-1", { closure }), path("b-2", { added: 1e15, generations: [GENERATION] }));
  const json = JSON.parse([...listJson('a "cache"', found)].join("\n"));
  expect(json).toEqual({
    cache: 'a "cache"',
    totals: found.totals,
    paths: [
      {
        ...{ path: `/nix/store/${storeHash("a-1")}-a-1`, hash: storeHash("a-1"), name: "a-1" },
        ...{ narSize: 1_500_000, fileSize: 400_000, added: "2026-05-29T00:00:00.000Z", closure },
      },
      {
        ...{ path: `/nix/store/${storeHash("b-2")}-b-2`, hash: storeHash("b-2"), name: "b-2" },
        ...{ narSize: 1_500_000, fileSize: 400_000, added: null, generations: [GENERATION] },
      },
    ],
  });
  expect(JSON.parse([...listJson("c", list())].join("\n"))).toMatchObject({ paths: [] });
});

test("the totals in a sentence", () => {
  expect(listTotals("c", list(path("a")), "")).toBe("c has 1 path, 1.4 MiB unpacked, 391 KiB compressed");
  expect(listTotals("c", list(path("a")), "x")).toStartWith("1 path of c matches, ");
  expect(listTotals("c", list(), "x")).toStartWith("0 paths of c match, ");
});

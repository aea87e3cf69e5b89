/** The views of a cache with 100,000 paths: all of them, in bounded memory. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { type Cli, openCli } from "../support/cli.ts";
import { fillLargeCache } from "../support/large-cache.ts";
import { Cleanup } from "../support/lease.ts";

const PATHS = 100_000;
const MIB = 1024 ** 2;

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
beforeAll(async () => {
  cli = cleanup.add(await openCli());
  await fillLargeCache(cli.path("large"), PATHS);
});

const run = (...args: string[]) => cli.run([...args, "--cache", cli.path("large")]);

test("list: every path once, in under 250 MiB while the index is read, and under 150 MiB after that", async () => {
  const first = await run("list");
  const second = await run("list");
  const lines = second.stdout.trimEnd().split("\n");
  expect(lines).toHaveLength(PATHS);
  expect(new Set(lines).size).toBe(PATHS);
  expect(first.stdout).toBe(second.stdout);
  expect(first.peakRss).toBeLessThan(250 * MIB);
  expect(second.peakRss).toBeLessThan(150 * MIB);
});

test("list: all closures and generations as one JSON object, sorted by closure", async () => {
  const { code, stdout, peakRss } = await run("list", "--json", "--sort", "closure", "--generations");
  expect(code).toBe(0);
  const { totals, paths } = JSON.parse(stdout);
  expect(totals.paths).toBe(PATHS);
  expect(paths).toHaveLength(PATHS);
  const sizes = paths.map(({ closure }: { closure: { narSize: number } }) => closure.narSize);
  expect(sizes).toEqual(sizes.toSorted((a: number, b: number) => b - a));
  expect(paths.every(({ generations }: { generations: string[] }) => generations.length === 1)).toBe(true);
  expect(peakRss).toBeLessThan(400 * MIB);
});

test("history, diff and why", async () => {
  const history = await run("history", "--json");
  expect(JSON.parse(history.stdout).generations).toMatchObject([{ paths: PATHS, added: { paths: PATHS } }]);
  const diff = await run("diff", "latest", "latest");
  expect(diff.stdout).toEndWith("both hold the same paths\n");
  const [path] = JSON.parse((await run("list", "--json", "--limit", "1")).stdout).paths;
  const why = await run("why", path.path);
  expect(why.stdout).toContain("is in 1 generation\n");
  for (const { peakRss } of [history, why]) expect(peakRss).toBeLessThan(300 * MIB);
  // Two generations of this size are compared in memory.
  expect(diff.peakRss).toBeLessThan(600 * MIB);
});

/** Environment variables: what is read is documented, and what is documented is read. */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../../../scripts/process.ts";
import { PAGES, page } from "../../support/docs.ts";

/** Of other programs: pages tell of them, and we do not read them. */
const FOREIGN: Readonly<Record<string, string>> = {
  SSL_CERT_FILE: "Bun",
  HTTPS_PROXY: "Bun",
  NO_PROXY: "Bun",
  CACHIX_AUTH_TOKEN: "cachix",
  CACHIX_SIGNING_KEY: "cachix",
};

/** Where variables are read: by the executable, and by what is around it. */
const config = readFileSync(join(ROOT, "src/config.ts"), "utf8");
const others = [
  "action.yml",
  ...["src", "scripts", "tests", ".github"].flatMap((folder) =>
    (readdirSync(join(ROOT, folder), { recursive: true }) as string[])
      .filter((name) => /\.(ts|sh|yml)$/.test(name))
      .map((name) => join(folder, name)),
  ),
].filter((name) => !name.startsWith("tests/unit/docs"));
const sources = others.map((name) => readFileSync(join(ROOT, name), "utf8")).join("\n");

/** Names in texts, and in `env.NAME`. */
function variablesOf(source: string): string[] {
  const names = source.matchAll(
    /["'`]([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|HOME|TMPDIR)["'`]|\benv\.([A-Z][A-Z0-9_]+)/g,
  );
  return [...new Set([...names].map(([, quoted, member]) => quoted ?? member ?? ""))].sort();
}

/** In code, whole: `GITHUB_TOKEN`, `NAME=value`. "…_SIZE" goes on from the name before it. */
function variablesIn(text: string): string[] {
  const [whole] = /^([A-Z][A-Z0-9]*(_[A-Z0-9]+)+|HOME|TMPDIR)(?==|$)/.exec(text) ?? [];
  return whole === undefined ? [] : [whole];
}

/** Some stand where others take their place from. */
const documented = page("docs/configuration.md")
  .rows.filter(({ under }) => under === "Environment")
  .flatMap(({ code }) => code.flat().flatMap(variablesIn));

test("every variable that config.ts reads is in the table of docs/configuration.md", () => {
  const read = variablesOf(config);
  expect(read.length).toBeGreaterThan(30);
  expect(read.filter((name) => !documented.includes(name))).toEqual([]);
});

test("every variable in that table is read by the executable", () => {
  const inSources = (name: string) => new RegExp(`\\b${name}\\b`).test(sources);
  expect(documented.filter((name) => !inSources(name))).toEqual([]);
});

test("every variable that a page names is read somewhere", () => {
  const named = PAGES.flatMap(({ spans, blocks }) => [
    ...spans.flatMap(({ at, text }) => variablesIn(text).map((name) => [at, name] as const)),
    ...blocks.flatMap(({ at, text }) =>
      [...text.matchAll(/\bNIXCACHE_[A-Z_]+/g)].map(([name]) => [at, name] as const),
    ),
  ]);
  const isKnown = (name: string) => name in FOREIGN || new RegExp(`\\b${name}\\b`).test(sources);
  const unread = named.filter(([, name]) => !isKnown(name));
  expect(unread).toEqual([]);
});

test("what counts as a variable", () => {
  const source = 'variable(env, "NIXCACHE_A"); env.GITHUB_B; const NAME_C = "words"; env["HOME"]';
  expect(variablesOf(source)).toEqual(["GITHUB_B", "HOME", "NIXCACHE_A"]);
  expect(["NIXCACHE_A", "A_B=c", "OWNER/REPO", "PATH", "NIXCACHE_A and more"].flatMap(variablesIn)).toEqual([
    "NIXCACHE_A",
    "A_B",
  ]);
});

/** The tables of docs/registries.md are what was recorded from real registries. */
import { describe, expect, test } from "bun:test";
import { page } from "../../support/docs.ts";
import type { RealRegistryName } from "../../support/real-registry-kinds.ts";
import { type RecordedAnswer, readRecorded } from "../../support/registry-answers.ts";

const REGISTRIES: readonly RealRegistryName[] = ["docker-registry", "distribution", "olareg", "zot", "gitea"];

/** Rows of the page, and the recorded answer that each is about: of a question, by its place. */
const ROWS: Readonly<Record<string, readonly [question: string, at: number]>> = {
  "a manifest that names a missing layer": ["a manifest that names a missing layer", 0],
  "a blob whose bytes have another digest": ["a blob of another digest", 0],
  "a range of a blob": ["ranges of a blob", 0],
  "a range beyond its end": ["ranges of a blob", 2],
  "a manifest under a tag with capitals": ["a tag with capitals", 0],
  "that tag in lower case": ["a tag with capitals", 3],
  "deleting a manifest by its digest": ["deleting a manifest with two tags", 1],
  "a second tag on it afterwards": ["deleting a manifest with two tags", 3],
  "deleting one where deletion is off": ["deleting where that is off", 0],
  "deleting one in a repository that is not there": ["a repository that nobody has made", 3],
  "a conditional request for what has not changed": ["a manifest that has not changed", 0],
  "writing a tag only if it is not there, which it is": ["conditional writes", 0],
  "writing a tag only if it is another, which it is not": ["conditional writes", 1],
  "the tags of a repository that is not there": ["a repository that nobody has made", 0],
  "a blob that only another repository has": ["a blob that another repository has", 0],
  "mounting it": ["a blob that another repository has", 1],
  "an upload where writing is off": ["writing where that is off", 0],
  "more requests than are allowed": ["more requests than are allowed in a second", 0],
  "a request without credentials": ["a request without credentials", 0],
};

/** `400 MANIFEST_INVALID`, `429, Retry-After 1`; a dash for a registry that has no such setting. */
function cellOf(answer: RecordedAnswer | undefined): string {
  if (answer === undefined) return "–";
  const { status, headers, body = "" } = answer;
  const code = /"code":"([A-Z_]+)"/.exec(body)?.[1];
  const what = code === undefined ? `${status}` : `${status} \`${code}\``;
  if (status < 400) return what;
  const after = headers["retry-after"];
  if (after !== undefined) return `${what}, \`Retry-After\` ${after}`;
  return body.includes("<!DOCTYPE html>") ? `${what}, a page` : what;
}

const { rows } = page("docs/registries.md");
const measured = rows.filter(({ under }) => under === "What was run");
const recorded = await Promise.all(REGISTRIES.map(readRecorded));

test("every row of the answers is what was recorded", () => {
  const found = Object.fromEntries(
    measured
      .filter(({ cells: [name = ""] }) => name in ROWS)
      .map(({ cells: [name, ...cells] }) => [name, cells]),
  );
  const expected = Object.fromEntries(
    Object.entries(ROWS).map(([name, [question, at]]) => [
      name,
      recorded.map(({ answers }) => cellOf(answers[question]?.[at])),
    ]),
  );
  expect(found).toEqual(expected);
});

test("the versions are those that were asked", () => {
  for (const { program, version } of recorded) {
    const row = measured.find(
      ({ cells: [name = "", said = ""] }) => nameIn(name) === program && /^\d/.test(said),
    );
    expect([program, row?.cells[1]]).toEqual([program, version.replace("+unknown", "")]);
  }
});

test("what was not run says where it is from", () => {
  const others = rows.filter(({ under }) => under === "What was not run");
  expect(others.length).toBeGreaterThan(5);
  for (const { cells } of others) expect(cells.at(-1)).toMatch(/^\[[^\]]+\]\(https:\/\/[^)]+\)$/);
});

/** `distribution` of "distribution", `docker-registry` of "docker-registry (distribution 2.8)". */
function nameIn(cell: string): string {
  return (cell.split(" ")[0] ?? "").toLowerCase();
}

describe("what a cell says", () => {
  test.each<[string, RecordedAnswer | undefined]>([
    ["–", undefined],
    ["200", { request: "", status: 200, headers: {}, body: '{"tags":[]}' }],
    ["404", { request: "", status: 404, headers: {} }],
    [
      "400 `NAME_UNKNOWN`",
      { request: "", status: 400, headers: {}, body: '{"errors":[{"code":"NAME_UNKNOWN"}]}' },
    ],
    ["429, `Retry-After` 1", { request: "", status: 429, headers: { "retry-after": "1" } }],
    ["500, a page", { request: "", status: 500, headers: {}, body: "\n<!DOCTYPE html>\n" }],
  ])("%s", (cell, answer) => expect(cellOf(answer)).toBe(cell));
});

/** Whose runs of GitHub Actions have a token that may only read. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readOnlyRun } from "../../../src/actions/event.ts";

const folder = mkdtempSync(join(tmpdir(), "nixcache-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function of(name: string, event: unknown, actor = "somebody") {
  const file = join(folder, "event.json");
  writeFileSync(file, typeof event === "string" ? event : JSON.stringify(event));
  return readOnlyRun({ name, file, repository: "Me/Repo", actor });
}

const from = (repo: unknown) => ({ pull_request: { head: { repo } }, repository: { full_name: "Me/Repo" } });
const FORK = "a pull request from a fork";

test.each<[string, string | undefined, string, unknown]>([
  ["a pull request from a fork", FORK, "pull_request", from({ full_name: "you/Repo" })],
  ["one from a fork that is gone", FORK, "pull_request", from(null)],
  ["a review of one from a fork", FORK, "pull_request_review", from({ full_name: "you/Repo" })],
  ["one from the repository itself", undefined, "pull_request", from({ full_name: "me/repo" })],
  [
    "one that runs with the repository's rights",
    undefined,
    "pull_request_target",
    from({ full_name: "you/Repo" }),
  ],
  ["a push", undefined, "push", { repository: { full_name: "Me/Repo" } }],
  ["an event of another shape", undefined, "pull_request", { pull_request: 7 }],
  ["an event that is no JSON", undefined, "pull_request", "{"],
  ["an event that is nothing", undefined, "pull_request", "null"],
])("%s", (_, expected, name, event) => {
  expect(of(name, event)).toBe(expected as string);
});

test("the repository is known where the event does not say it", () => {
  expect(of("pull_request", { pull_request: { head: { repo: { full_name: "you/repo" } } } })).toBe(FORK);
  expect(of("pull_request", { pull_request: { head: { repo: { full_name: "me/repo" } } } })).toBeUndefined();
});

test("an event that cannot be read says nothing", () => {
  const event = { name: "pull_request", file: join(folder, "absent"), repository: "Me/Repo", actor: "a" };
  expect(readOnlyRun(event)).toBeUndefined();
});

test("what Dependabot sets off", () => {
  expect(of("push", {}, "dependabot[bot]")).toBe("a run that Dependabot has set off");
});

/** What a publish tells, whatever became of it. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { OutputRow } from "../../../src/build/report.ts";
import { type Published, tell } from "../../../src/commands/publish-report.ts";
import { EXIT_CODES, NixcacheError } from "../../../src/errors.ts";
import { parseReference } from "../../../src/oci/reference.ts";
import { commandContext } from "../../support/command-context.ts";

const folder = mkdtempSync(join(tmpdir(), "nixcache-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ROWS: OutputRow[] = [
  { attribute: "packages.x.good", status: "built", path: "/nix/store/good", seconds: 3 },
  { attribute: "packages.x.bad", status: "failed", reason: "no compiler", log: ["cc: not found"] },
];
const BUILT = { rows: ROWS, buildMs: 5000 };
const REFUSED = new NixcacheError("denied", "registry/cache: not allowed to write to it", {
  hint: "Log in.",
});
const RESULT: NonNullable<Published["result"]> = {
  generation: "20260101t000000z-0123456789abcdef",
  paths: { closure: 1, upstream: 0, restated: 0, uploaded: 1 },
  bytes: { nar: 10, sent: 10 },
  newPaths: [],
  leftOut: [],
};
const HOLDINGS = { cacheName: "registry/cache", paths: 1, generations: 1 };

let count = 0;

/** Tells it as in a step of GitHub Actions, or anywhere else. */
function told(published: Published, { inActions = false, dryRun = false } = {}) {
  const [summary, output] = [join(folder, `summary-${++count}`), join(folder, `output-${count}`)];
  const env = inActions
    ? { GITHUB_ACTIONS: "true", GITHUB_STEP_SUMMARY: summary, GITHUB_OUTPUT: output }
    : {};
  const { context, printed, logged, stepLines, codes } = commandContext(env);
  const run = {
    reference: parseReference("registry.example/cache"),
    ...{ key: undefined, dryRun, json: true, elapsedMs: 6000 },
  };
  let thrown: unknown;
  try {
    tell(published, run, context);
  } catch (error) {
    thrown = error;
  }
  const read = (file: string) => (inActions ? readFileSync(file, "utf8") : "");
  return {
    ...{ thrown, logged, stepLines, code: codes.at(-1) },
    json: printed.map((text) => JSON.parse(text)),
    summary: read(summary),
    output: read(output),
  };
}

describe("a publish that failed after the build", () => {
  const published = { ...BUILT, result: undefined, failure: REFUSED };

  test("tells what was built, as JSON and as a table, and then why it failed", () => {
    const { thrown, json, logged } = told(published);
    expect(thrown).toBe(REFUSED);
    expect(json).toEqual([
      {
        ...{ cache: "registry.example/cache", dryRun: false, generation: null },
        ...{ outputs: ROWS, buildMs: 5000, elapsedMs: 6000 },
        error: { code: "denied", message: REFUSED.message, hint: "Log in." },
      },
    ]);
    expect(logged[0]).toMatch(/^info: outputs: .*\nbuilt .*packages.x.good.*\nfailed .*no compiler/);
    expect(logged.at(-1)).toBe("error: 1 output of 2 failed");
  });

  test("in GitHub Actions has a summary, outputs and annotations", () => {
    const { summary, output, stepLines, thrown } = told(published, { inActions: true });
    expect(thrown).toBe(REFUSED);
    expect(summary).toMatch(
      /Not published to .*CAUTION.*not allowed to write to it\. Log in\..*### Outputs.*cc: not found/s,
    );
    expect(output).toMatch(
      /generation<<[^\n]*\n\n.*uploaded<<[^\n]*\n0\n.*public-key<<[^\n]*\n\n.*failed<<[^\n]*\n1\n/s,
    );
    expect(stepLines.join("\n")).toContain("::error title=packages.x.bad::failed: no compiler");
  });

  test("by a defect is told as such", () => {
    const failure = new Error("oops");
    const { thrown, json } = told({ ...published, failure });
    expect(thrown).toBe(failure);
    expect(json).toMatchObject([{ error: { code: "internal", message: "oops" } }]);
  });

  test("tells what was named and is none", () => {
    const leftOut = [{ path: "./nothing", reason: "it names no path" }];
    const { logged, thrown } = told({ ...published, leftOut });
    expect(logged).toContain("error: left out ./nothing: it names no path");
    expect(thrown).toBe(REFUSED);
  });
});

describe("a publish that was not to publish", () => {
  const readOnly = "registry/cache: it takes no uploads (--read-only-ok)";
  const [good] = ROWS as [OutputRow];

  test("ends well when all was built", () => {
    const { thrown, json, code, summary } = told(
      { rows: [good], buildMs: 1, result: undefined, readOnly },
      { inActions: true },
    );
    expect([thrown, code]).toEqual([undefined, undefined]);
    expect(json).toMatchObject([{ readOnly: true, generation: null, outputs: [good] }]);
    expect(summary).toMatch(/Not published to .*NOTE.*it takes no uploads.*### Outputs/s);
  });

  test("fails for what was not built, and for what was named and is none", () => {
    expect(told({ ...BUILT, result: undefined, readOnly }).code).toBe(EXIT_CODES.build);
    const leftOut = [{ path: "./nothing", reason: "it names no path" }];
    expect(told({ rows: [good], result: undefined, readOnly, leftOut }).code).toBe(EXIT_CODES.incomplete);
  });

  test("has the exit status of the command that it ran", () => {
    expect(told({ result: undefined, readOnly, exitCode: 7 }).code).toBe(7);
  });
});

describe("a publish that went through", () => {
  test("has the status of what was left out before that of what was not built", () => {
    const published = { ...BUILT, result: RESULT, holdings: HOLDINGS };
    expect(told(published).code).toBe(EXIT_CODES.build);
    const leftOut = [{ path: "/nix/store/x", reason: "gone" }];
    expect(told({ ...published, result: { ...RESULT, leftOut } }).code).toBe(EXIT_CODES.incomplete);
    expect(told({ rows: [], result: RESULT, holdings: HOLDINGS }).code).toBeUndefined();
  });

  test("says that what could be built is published, unless it is a dry run", () => {
    const published = { ...BUILT, result: RESULT, holdings: HOLDINGS };
    expect(told(published).logged).toContain("error: 1 output of 2 failed, what could be built is published");
    expect(told(published, { dryRun: true }).logged).toContain("error: 1 output of 2 failed");
  });
});

test("a command whose publish failed with it says nothing of it", () => {
  expect(told({ result: undefined, exitCode: 3 })).toMatchObject({ thrown: undefined, json: [], code: 3 });
});

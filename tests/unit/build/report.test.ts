import { describe, expect, test } from "bun:test";
import {
  countStatuses,
  type OutputRow,
  outputRows,
  renderMarkdown,
  renderText,
  stateText,
} from "../../../src/build/report.ts";

const target = (attribute: string, outputs: Record<string, string> = { out: `/nix/store/${attribute}` }) => {
  return {
    attribute,
    name: attribute,
    drvPath: `/nix/store/${attribute}.drv`,
    system: "x86_64-linux",
    outputs,
  };
};

test("rows have failures first, and otherwise the order of discovery", () => {
  const rows = outputRows(
    {
      targets: [],
      missing: [{ attribute: "typo", reason: "there is no such attribute" }],
      broken: [{ attribute: "broken", reason: "it throws" }],
      skipped: [{ attribute: "other", reason: "it is for another system" }],
    },
    {
      untrusted: undefined,
      targets: [
        { target: target("present"), status: "present", outputs: {}, paths: [] },
        {
          target: target("b", { dev: "/nix/store/b-dev", out: "/nix/store/b" }),
          status: "built",
          outputs: {},
          paths: [],
          seconds: 3,
        },
        { target: target("a"), status: "built", outputs: {}, paths: [] },
        {
          target: target("blocked"),
          status: "blocked",
          outputs: {},
          paths: [],
          reason: "needs bad",
          log: ["of bad"],
        },
        {
          target: target("bad", { dev: "/nix/store/bad-dev" }),
          status: "failed",
          outputs: {},
          paths: [],
          reason: "no",
          log: ["oh"],
        },
      ],
    },
  );
  expect(rows).toEqual([
    { attribute: "bad", path: "/nix/store/bad-dev", status: "failed", reason: "no", log: ["oh"] },
    { attribute: "typo", status: "missing", reason: "there is no such attribute" },
    { attribute: "broken", status: "broken", reason: "it throws" },
    { attribute: "blocked", path: "/nix/store/blocked", status: "blocked", reason: "needs bad" },
    { attribute: "b", path: "/nix/store/b", status: "built", seconds: 3 },
    { attribute: "a", path: "/nix/store/a", status: "built" },
    { attribute: "present", path: "/nix/store/present", status: "present" },
    { attribute: "other", status: "skipped", reason: "it is for another system" },
  ]);
  expect(countStatuses(rows)).toBe("1 failed, 1 missing, 1 broken, 1 blocked, 2 built, 1 present, 1 skipped");
  expect(renderText(rows.slice(0, 5))).toBe(
    [
      "failed   bad      no",
      "missing  typo     there is no such attribute",
      "broken   broken   it throws",
      "blocked  blocked  needs bad",
      "built    b        /nix/store/b, 3 s",
    ].join("\n"),
  );
});

test("a table in Markdown, with folded logs", () => {
  const rows: OutputRow[] = [
    {
      attribute: "packages.x86_64-linux.a",
      status: "failed",
      reason: "builder failed",
      log: ["<b> & ", "", "```"],
    },
    { attribute: "", status: "built", path: "/nix/store/b", seconds: 185 },
  ];
  expect(renderMarkdown(rows)).toBe(`| output | status | path or reason | time |
|---|---|---|---|
| <code>packages.x86&#95;64-linux.a</code> | failed | builder failed |  |
| <code>(the file)</code> | built | <code>/nix/store/b</code> | 3 min 5 s |

<details><summary>The end of the log of <code>packages.x86&#95;64-linux.a</code></summary>

<pre>
&lt;b&gt; &amp; 

\`\`\`
</pre>
</details>
`);
  expect(renderMarkdown([])).toBe("No outputs.\n");
  expect(renderText([])).toBe("");
});

describe("what strangers write", () => {
  const hostile = "a|b\n| x | </code><script> `*_[l](http://h)\u001b[2J\u202e @somebody";

  test("cannot leave its cell", () => {
    const lines = renderMarkdown([{ attribute: hostile, status: "broken", reason: hostile }])
      .trim()
      .split("\n");
    expect(lines.length).toBe(3);
    expect(lines[2]?.split("|").length).toBe(6);
    expect(lines[2]).not.toMatch(/<(?!\/?code>)|[\p{Cc}\p{Cf}`*[\]@]|http:/u);
  });

  test("cannot leave its line, nor drive the terminal", () => {
    const text = renderText([{ attribute: hostile, status: "broken", reason: hostile }]);
    expect(text).not.toMatch(/[\p{Cc}\p{Cf}]/u);
  });

  test("cannot end the log", () => {
    const text = renderMarkdown([{ attribute: "a", status: "failed", log: ["</pre></details><script>"] }]);
    expect(text).not.toContain("<script>");
    expect(text.split("</pre>").length).toBe(2);
  });
});

test("a summary stays below GitHub's limit", () => {
  const log = Array.from({ length: 25 }, () => "x".repeat(500));
  const rows = Array.from({ length: 3000 }, (_, n) => {
    return {
      attribute: `packages.x86_64-linux.p${n}`,
      status: "failed" as const,
      reason: "y".repeat(300),
      log,
    };
  });
  const text = renderMarkdown(rows);
  expect(text.length).toBeLessThan(1024 * 1024);
  expect(text).toContain("… and 2700 more.");
});

test("the state of a build in one line", () => {
  const state = { built: 2, expected: 9, failed: 0, running: ["a-1", "b-2"], lastLine: "checking for gcc" };
  expect(stateText(state, 80)).toBe("[2 of 9 built] a-1, b-2: checking for gcc");
  expect(stateText({ ...state, failed: 1, lastLine: "" }, 80)).toBe("[2 of 9 built, 1 failed] a-1, b-2");
  expect(stateText(state, 20)).toBe("[2 of 9 built] a-1,");
});

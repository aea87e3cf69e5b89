import { describe, expect, test } from "bun:test";
import { countTests, reportedFiles } from "../../../scripts/junit.ts";

/** As Bun 1.4.5 writes it. */
const REPORT = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="bun test" tests="6" assertions="1" failures="1" skipped="3" time="0.009">
  <testsuite name="tests/a.test.ts" file="tests/a.test.ts" tests="5" assertions="1" failures="1" skipped="3" time="0.001" hostname="vm">
    <testcase name="ok &gt; &amp; &quot;q&quot; &#10; nl" classname="" time="0.000003" file="tests/a.test.ts" line="3" assertions="0" />
    <testcase name="skipped &lt;one&gt;" classname="" time="0" file="tests/a.test.ts" line="4" assertions="0">
      <skipped />
    </testcase>
    <testcase name="todo one" classname="" time="0" file="tests/a.test.ts" line="5" assertions="0">
      <skipped message="TODO" />
    </testcase>
    <testsuite name="outer" file="tests/a.test.ts" line="6" tests="2" assertions="1" failures="1" skipped="0" time="0" hostname="vm">
      <testcase name="bad" classname="outer" time="0.0003" file="tests/a.test.ts" line="6" assertions="1">
        <failure type="AssertionError" message="&lt;skipped /&gt;">AssertionError</failure>
      </testcase>
      <testcase name="good" classname="outer" time="0." file="tests/a.test.ts" line="6" assertions="0" />
    </testsuite>
  </testsuite>
  <testsuite name="tests/b &amp; c.test.ts" file="tests/b &amp; c.test.ts" tests="1" time="0">
    <testcase name="good" classname="" time="0" file="tests/b &amp; c.test.ts" line="1" assertions="0" />
  </testsuite>
</testsuites>`;

describe("the JUnit report", () => {
  test("is counted test by test", () => {
    expect(countTests(REPORT)).toEqual({
      passed: 3,
      failed: 1,
      skipped: ["tests/a.test.ts: skipped <one>", "tests/a.test.ts: todo one"],
    });
  });

  test("names the files that reported", () => {
    expect(reportedFiles(REPORT)).toEqual(new Set(["tests/a.test.ts", "tests/b & c.test.ts"]));
  });

  test("that is empty has no tests", () => {
    expect(countTests("")).toEqual({ passed: 0, failed: 0, skipped: [] });
    expect(reportedFiles("")).toEqual(new Set());
  });
});
